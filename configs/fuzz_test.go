package configs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func FuzzParsePop(f *testing.F)  { fuzzParse(f, KindPop, ParsePop) }
func FuzzParseGSLB(f *testing.F) { fuzzParse(f, KindGSLB, ParseGSLB) }
func FuzzParseLab(f *testing.F)  { fuzzParse(f, KindLab, ParseLab) }

// fuzzParse holds that a parser never panics, that its problems all have a
// place on one line each, and that a good config survives being written.
func fuzzParse[T any](f *testing.F, kind string, parse func(string, []byte) (*T, error)) {
	reference, err := os.ReadFile(referenceFile(kind))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reference)
	bad, err := filepath.Glob("testdata/bad/" + kind + "-*.*[nl]")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range bad {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := parse("fuzz.yaml", data)
		if err != nil {
			var problems Errors
			if !errors.As(err, &problems) || cfg != nil {
				t.Fatalf("got %v, %T %v", cfg, err, err)
			}
			checkLocated(t, problems, data)
			return
		}
		checkRoundTrip(t, cfg, parse)
	})
}

func checkRoundTrip[T any](t *testing.T, cfg *T, parse func(string, []byte) (*T, error)) {
	t.Helper()
	text, err := Encode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parse("encoded.yaml", text)
	if err != nil {
		t.Fatalf("the encoded config is bad: %v\n%s", err, text)
	}
	if !reflect.DeepEqual(cfg, again) {
		t.Fatalf("the encoded config differs:\n%s", text)
	}
	if second, err := Encode(again); err != nil || !bytes.Equal(text, second) {
		t.Fatalf("the text is not stable: %v\n%s\n%s", err, text, second)
	}
}
