package ops

import (
	"fmt"
	"html/template"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"strings"
)

// debugPages are the pages under /debug/, in the order of the index.
var debugPages = []struct {
	Path, Doc string
	handle    http.HandlerFunc
}{
	{"/debug/goroutines", "the stack of every goroutine", goroutines},
	{"/debug/build", "version, modules and settings of the binary", buildInfo},
	{"/debug/pprof/", "all profiles, for go tool pprof", pprof.Index},
	{"/debug/pprof/profile", "CPU profile; ?seconds=30", pprof.Profile},
	{"/debug/pprof/trace", "execution trace; ?seconds=1", pprof.Trace},
	{"/debug/pprof/symbol", "function names of program counters", pprof.Symbol},
	{"/debug/pprof/cmdline", "the command line", pprof.Cmdline},
}

// registerDebug adds /debug/ to a mux.
func registerDebug(mux *http.ServeMux, name string) {
	for _, p := range debugPages {
		mux.Handle(p.Path, readOnly(func(w http.ResponseWriter, r *http.Request) {
			// The pages of net/http/pprof have inline styles.
			w.Header().Set("Content-Security-Policy", contentPolicy+"; style-src 'unsafe-inline'")
			p.handle(w, r)
		}))
	}
	mux.Handle("/debug/{$}", readOnly(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// An error means that the client is gone.
		_ = debugIndex.Execute(w, struct {
			Name  string
			Pages any
		}{name, debugPages})
	}))
}

var debugIndex = template.Must(template.New("debug").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>debug {{.Name}}</title>
<h1>debug {{.Name}}</h1>
<ul>
{{- range .Pages}}
<li><a href="{{.Path}}">{{.Path}}</a>: {{.Doc}}</li>
{{- end}}
</ul>
</html>
`))

// goroutines writes all stacks as a crash would show them.
func goroutines(w http.ResponseWriter, r *http.Request) {
	r.Form = map[string][]string{"debug": {"2"}}
	pprof.Handler("goroutine").ServeHTTP(w, r)
}

func buildInfo(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	info, ok := debug.ReadBuildInfo()
	if !ok {
		writeError(w, NotFound("the binary holds no build information"))
		return
	}
	fmt.Fprintln(w, strings.TrimSpace(info.String()))
}
