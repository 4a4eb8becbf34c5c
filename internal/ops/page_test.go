package ops

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// samplePage has every form that a page can take, and text that wants out of it.
var samplePage = Page{
	Generated: time.Date(2026, 3, 29, 3, 4, 5, 0, time.FixedZone("", 2*3600)),
	Sections: []Section{
		{
			Title: "Points of presence", Note: "In the router's order of preference.",
			Columns: []string{"PoP", "State", "Route", "Reason"},
			Rows: [][]Cell{
				{{Text: "fra"}, {"healthy", ToneOK}, {"announced", ToneOK}, {}},
				{{Text: "iad"}, {"unhealthy", ToneBad}, {"de-preferred", ToneWarn}, {"worker's vitals are 1.4s old & getting older", TonePlain}},
				{{Text: "zürich"}, {"unknown", ToneDim}},
				{{Text: "sin"}, {"healthy", ToneOK}, {"withdrawn", ToneBad}, {Text: "drained"}, {Text: "one cell too many"}},
			},
		},
		{
			Title:   `<script>alert("title")</script>`,
			Note:    `<img src=x onerror=alert("note")>`,
			Columns: []string{`"><b>column`, "tone"},
			Rows: [][]Cell{
				{{Text: `</td></table><script>alert("cell")</script>`}, {"tone", `"><script>alert("tone")</script>`}},
				{{Text: "\x1b[31mred\x07\r\nnew line\ttab \u202e"}, {}},
			},
		},
		{Title: "Drains", Columns: []string{"Scope", "Name"}},
	},
}

func pageServer(page Page, err error) *Server {
	return New(Config{Log: discard, Page: StatusPage("anyedge <lab>", func(context.Context) (Page, error) { return page, err })})
}

func TestPageGolden(t *testing.T) {
	for name, fields := range map[string][]string{
		"page.txt":  nil,
		"page.html": {"Accept: text/html,application/xhtml+xml"},
	} {
		resp := ask(pageServer(samplePage, nil), "GET", "/", "", fields...)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", name, resp.Status)
		}
		got := text(t, resp) + "\n"
		// Style and script have files of their own.
		got = strings.Replace(strings.Replace(got, pageStyle, "STYLE", 1), pageScript, "SCRIPT", 1)
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs (go test -update writes it):\n%s", name, got)
		}
	}
}

func TestPageEscapes(t *testing.T) {
	html := text(t, ask(pageServer(samplePage, nil), "GET", "/?format=html", ""))
	if n := strings.Count(html, "<script"); n != 1 {
		t.Errorf("%d script elements, want the page's own", n)
	}
	for _, bad := range []string{"<img", "<b>", `alert("`, "<lab>"} {
		if strings.Contains(html, bad) {
			t.Errorf("%s got through", bad)
		}
	}
	plain := text(t, ask(pageServer(samplePage, nil), "GET", "/?format=text", ""))
	for _, bad := range []string{"\x1b", "\x07", "\r", "\u202e", "\t"} {
		if strings.Contains(plain, bad) {
			t.Errorf("%q got through to a terminal", bad)
		}
	}
}

// The content security policy allows exactly the style and the script that are
// in the page, byte for byte.
func TestPagePolicyFitsThePage(t *testing.T) {
	resp := ask(pageServer(samplePage, nil), "GET", "/?format=html", "")
	policy, html := resp.Header.Get("Content-Security-Policy"), text(t, resp)
	for element, directive := range map[string]string{"style": "style-src", "script": "script-src"} {
		found := regexp.MustCompile("(?s)<" + element + ">(.*)</" + element + ">").FindStringSubmatch(html)
		if found == nil {
			t.Fatalf("no %s in the page", element)
		}
		if want := directive + " '" + sourceHash(found[1]) + "'"; !strings.Contains(policy, want) {
			t.Errorf("policy %s lacks %s", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none'") {
		t.Errorf("policy %s", policy)
	}
	if regexp.MustCompile(`(?:src|href)="(?:https?:)?//`).MatchString(html) {
		t.Error("the page asks somebody else")
	}
}

func TestPageForm(t *testing.T) {
	for _, tt := range []struct{ target, accept, want string }{
		{"/", "*/*", "text/plain; charset=utf-8"},
		{"/", "", "text/plain; charset=utf-8"},
		{"/", "text/html,*/*;q=0.8", "text/html; charset=utf-8"},
		{"/?format=text", "text/html", "text/plain; charset=utf-8"},
		{"/?format=html", "*/*", "text/html; charset=utf-8"},
	} {
		resp := ask(pageServer(samplePage, nil), "GET", tt.target, "", "Accept: "+tt.accept)
		if got := resp.Header.Get("Content-Type"); got != tt.want {
			t.Errorf("%s with Accept %q: %s, want %s", tt.target, tt.accept, got, tt.want)
		}
	}
}

func TestPageSummary(t *testing.T) {
	row := func(tones ...Tone) Page {
		var cells []Cell
		for _, tone := range tones {
			cells = append(cells, Cell{"x", tone})
		}
		return Page{Sections: []Section{{Rows: [][]Cell{cells}}}}
	}
	for _, tt := range []struct {
		page Page
		err  error
		want string
		tone Tone
	}{
		{Page{}, nil, "all well", ToneOK},
		{row(ToneOK, ToneDim, TonePlain), nil, "all well", ToneOK},
		{row(ToneWarn), nil, "1 warning", ToneWarn},
		{row(ToneBad, ToneOK), nil, "1 problem", ToneBad},
		{row(ToneBad, ToneWarn, ToneBad, ToneWarn), nil, "2 problems, 2 warnings", ToneBad},
		{Page{}, errors.New("x"), "unavailable", ToneBad},
	} {
		if v := newView(tt.page, tt.err); v.Summary != tt.want || v.Tone != tt.tone {
			t.Errorf("%q %q, want %q %q", v.Summary, v.Tone, tt.want, tt.tone)
		}
	}
}

func TestPageThatCannotBeLoaded(t *testing.T) {
	s := pageServer(Page{}, errors.New("no <admin> at fra"))
	for target, want := range map[string]string{
		"/?format=text": "\n\nno <admin> at fra",
		"/?format=html": `<p class="failure">no &lt;admin&gt; at fra</p>`,
	} {
		resp := ask(s, "GET", target, "")
		if got := text(t, resp); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(got, want) {
			t.Errorf("%s: %s\n%s", target, resp.Status, got)
		}
	}
}

func TestPageDefaults(t *testing.T) {
	before := time.Now().UTC().Truncate(time.Second)
	got := text(t, ask(pageServer(Page{Title: "own title"}, nil), "GET", "/", ""))
	title, rest, _ := strings.Cut(got, "\n")
	at, err := time.Parse(timeLayout, strings.TrimSpace(rest))
	if title != "own title: all well" || err != nil || at.Before(before) || at.After(time.Now()) {
		t.Errorf("%s", got)
	}
}
