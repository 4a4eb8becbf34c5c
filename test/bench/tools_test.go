package main

import (
	"strings"
	"testing"
	"time"
)

const wrkReport = `Running 1s test @ http://127.0.77.2:18080/1k
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.63ms    1.22ms  22.15ms   86.50%
    Req/Sec    20.40k     1.51k   23.05k    50.00%
  Latency Distribution
     50%  985.00us
     75%    2.01ms
     90%    3.04ms
     99%    5.78ms
  40612 requests in 1.01s, 51.23MB read
Requests/sec:  40241.11
Transfer/sec:     50.76MB
`

func TestParseWrk(t *testing.T) {
	got, err := parseWrk([]byte(wrkReport))
	want := load{done: 40612, took: 1010 * time.Millisecond, p50: 985 * time.Microsecond, p99: 5780 * time.Microsecond}
	if err != nil || got != want {
		t.Errorf("parseWrk = %+v, %v, want %+v", got, err, want)
	}
}

func TestParseWrkRefusesFailures(t *testing.T) {
	for _, bad := range []string{
		"",
		"unable to connect to 127.0.77.2:18080 Connection refused\n",
		wrkReport + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
		wrkReport + "  Non-2xx or 3xx responses: 40612\n",
	} {
		if got, err := parseWrk([]byte(bad)); err == nil {
			t.Errorf("parseWrk(%q) = %+v, want an error", bad, got)
		}
	}
}

const h2loadReport = `starting benchmark...
spawning thread #0: 16 total client(s). Timing-based test with 0s of warm-up time and 1s of main duration for measurements.
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Application protocol: h2

finished in 1.00s, 38462.00 req/s, 38.20MB/s
requests: 38462 total, 38718 started, 38462 done, 38462 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 38478 2xx, 0 3xx, 0 4xx, 0 5xx
`

func TestParseH2load(t *testing.T) {
	got, err := parseH2load([]byte(h2loadReport))
	if want := (load{done: 38462, took: time.Second}); err != nil || got != want {
		t.Errorf("parseH2load = %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{
		"",
		strings.Replace(h2loadReport, "0 failed", "1 failed", 1),
		strings.Replace(h2loadReport, "0 errored", "1 errored", 1),
		strings.Replace(h2loadReport, "0 timeout", "1 timeout", 1),
	} {
		if got, err := parseH2load([]byte(bad)); err == nil {
			t.Errorf("parseH2load(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestParseH2loadLog(t *testing.T) {
	got, err := parseH2loadLog(strings.NewReader("1795369251909991\t200\t612\n1795369251909995\t200\t400\n"))
	if err != nil || len(got) != 2 || got[0] != 612*time.Microsecond || got[1] != 400*time.Microsecond {
		t.Errorf("parseH2loadLog = %v, %v", got, err)
	}
	for _, bad := range []string{"1 200\n", "1 200 soon\n"} {
		if got, err := parseH2loadLog(strings.NewReader(bad)); err == nil {
			t.Errorf("parseH2loadLog(%q) = %v, want an error", bad, got)
		}
	}
}

func TestPercentile(t *testing.T) {
	samples := make([]time.Duration, 100)
	for i := range samples {
		samples[i] = time.Duration(100 - i) // 100 down to 1
	}
	for percent, want := range map[int]time.Duration{0: 1, 50: 51, 99: 100, 100: 100} {
		if got := percentile(samples, percent); got != want {
			t.Errorf("percentile %d = %d, want %d", percent, got, want)
		}
	}
	if got := percentile(nil, 50); got != 0 {
		t.Errorf("percentile of nothing = %d", got)
	}
}
