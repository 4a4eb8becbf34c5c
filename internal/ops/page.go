package ops

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// A Page is what a status page shows: sections of tables.
type Page struct {
	// Title of the page. Empty: that of the handler.
	Title string
	// Generated is when the content was true. Zero: now.
	Generated time.Time
	Sections  []Section
}

// A Section is one table.
type Section struct {
	Title string
	// Note is a line under the title. May be empty.
	Note string
	// Columns are the headings. The first column names the row.
	Columns []string
	Rows    [][]Cell
}

// A Cell is one field of a table.
type Cell struct {
	Text string
	Tone Tone
}

// A Tone says how a cell looks. It adds nothing that the text does not say.
type Tone string

// The tones. Cells that are bad or warn are counted at the top of the page.
const (
	TonePlain Tone = ""
	ToneOK    Tone = "ok"
	ToneWarn  Tone = "warn"
	ToneBad   Tone = "bad"
	ToneDim   Tone = "dim"
)

const (
	// pageTimeout bounds loading the content of a page.
	pageTimeout = 5 * time.Second
	timeLayout  = "2006-01-02 15:04:05 MST"
)

var (
	//go:embed page.css
	pageStyle string
	//go:embed page.js
	pageScript string
	//go:embed page.html
	pageSource   string
	pageTemplate = template.Must(template.New("page").Parse(pageSource))
	// pagePolicy allows the page's own style and script by their hash, and
	// nothing else.
	pagePolicy = fmt.Sprintf("%s; style-src '%s'; script-src '%s'; connect-src 'self'; img-src data:",
		contentPolicy, sourceHash(pageStyle), sourceHash(pageScript))
)

// sourceHash is a hash source of a content security policy (CSP level 3).
func sourceHash(source string) string {
	sum := sha256.Sum256([]byte(source))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// StatusPage returns a handler that renders what load returns: as HTML that
// keeps itself up to date for a browser, and as aligned plain text for
// ?format=text and for clients that do not ask for HTML, such as curl.
//
// The page stands alone: no other file, no framework, no request to anybody
// else. When load fails the page says so, with status 503, and goes on trying.
func StatusPage(title string, load func(context.Context) (Page, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		page, err := load(ctx)
		page.Title = cmp.Or(page.Title, title)
		if page.Generated.IsZero() {
			page.Generated = time.Now()
		}
		v := newView(page, err)

		var body bytes.Buffer
		h := w.Header()
		h.Set("Vary", "Accept")
		if wantsText(r) {
			h.Set("Content-Type", "text/plain; charset=utf-8")
			v.writeText(&body)
		} else {
			h.Set("Content-Type", "text/html; charset=utf-8")
			h.Set("Content-Security-Policy", pagePolicy)
			if err := pageTemplate.Execute(&body, v); err != nil {
				writeError(w, fmt.Errorf("render the page: %w", err))
				return
			}
		}
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		// An error means that the client is gone.
		_, _ = w.Write(body.Bytes())
	})
}

func wantsText(r *http.Request) bool {
	if format := r.URL.Query().Get("format"); format != "" {
		return format == "text"
	}
	return !strings.Contains(r.Header.Get("Accept"), "text/html")
}

// view is a page made ready for either rendering: rows are filled up and cells
// know their column.
type view struct {
	Title     string
	Summary   string // how many cells are bad or warn, in words
	Tone      Tone   // the worst there is
	Generated time.Time
	Error     string
	Sections  []sectionView
}

type sectionView struct {
	Section
	Cells [][]cellView
}

type cellView struct {
	Cell
	Column string
}

// shortCell is up to how many runes a cell is kept on one line.
const shortCell = 24

// Class is the cell's tone, and whether it is short.
func (c cellView) Class() string {
	if utf8.RuneCountInString(c.Text) <= shortCell {
		return strings.TrimSpace(string(c.Tone) + " short")
	}
	return string(c.Tone)
}

func newView(p Page, err error) view {
	v := view{Title: p.Title, Generated: p.Generated.UTC(), Tone: ToneOK, Summary: "all well"}
	counts := make(map[Tone]int)
	for _, s := range p.Sections {
		sv := sectionView{Section: s}
		for _, row := range s.Rows {
			cells := make([]cellView, max(len(row), len(s.Columns)))
			for i := range cells {
				if i < len(row) {
					cells[i].Cell = row[i]
					counts[row[i].Tone]++
				}
				if i < len(s.Columns) {
					cells[i].Column = s.Columns[i]
				}
			}
			sv.Cells = append(sv.Cells, cells)
		}
		v.Sections = append(v.Sections, sv)
	}
	var words []string
	if n := counts[ToneWarn]; n > 0 {
		v.Tone, words = ToneWarn, append(words, plural(n, "warning"))
	}
	if n := counts[ToneBad]; n > 0 {
		v.Tone, words = ToneBad, append([]string{plural(n, "problem")}, words...)
	}
	if len(words) > 0 {
		v.Summary = strings.Join(words, ", ")
	}
	if err != nil {
		v.Tone, v.Summary, v.Error = ToneBad, "unavailable", err.Error()
	}
	return v
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Style and Script are the page's own, which html/template need not escape.
func (view) Style() template.CSS { return template.CSS(pageStyle) }

// Script is like Style.
func (view) Script() template.JS { return template.JS(pageScript) }

// Stamp is the time of the content in a machine's form, Time in a person's.
func (v view) Stamp() string { return v.Generated.Format(time.RFC3339) }

// Time is like Stamp.
func (v view) Time() string { return v.Generated.Format(timeLayout) }
