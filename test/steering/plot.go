package main

import (
	"bytes"
	"fmt"
	"slices"

	"anyedge/gslb/steer/world"
)

// colors of the ways of steering, told apart by the color-blind too.
var colors = [world.Steerings]string{"#d55e00", "#e69f00", "#56b4e9", "#009e73", "#666666"}

// panel is a diagram at a place of the picture.
type panel struct {
	*bytes.Buffer
	left, top, width, height float64
	maxX, maxY               float64
}

// plot draws the distribution of RTT and the fullest PoP over the day.
func (r *report) plot() []byte {
	var b bytes.Buffer
	b.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 400" font-family="sans-serif" font-size="12">` + "\n")
	b.WriteString(`<rect width="960" height="400" fill="white"/>` + "\n")
	rtt := panel{&b, 60, 40, 380, 280, 100, 1}
	rtt.axes("share of demand within a round-trip time (ms)", 20, 0.2, func(x float64) string { return fmt.Sprintf("%.0f", x) })
	day := panel{&b, 540, 40, 380, 280, 24, 2}
	day.axes("fullest PoP over its ceiling, by hour (UTC); 200 % and more at the top", 4, 0.5, func(x float64) string { return fmt.Sprintf("%02.0f:00", x) })
	day.line("#000000", "4 3", [][2]float64{{0, 1}, {24, 1}})
	for i, o := range r.outcomes {
		dash := ""
		if o.Steering == world.Optimum {
			dash = "6 3"
		}
		var points [][2]float64
		for q := 0.0; q < 0.9951; q += 0.005 {
			if x := o.RTT.Quantile(q); x <= rtt.maxX {
				points = append(points, [2]float64{x, q})
			}
		}
		rtt.line(colors[i], dash, points)
		if o.Steering != world.Optimum {
			points = nil
			for minute := 0; minute < world.Day; minute += 4 {
				points = append(points, [2]float64{float64(minute) / 60, min(day.maxY, slices.Max(o.Fullest[minute:minute+4]))})
			}
			day.line(colors[i], "", points)
		}
		x := 60 + 180*i
		fmt.Fprintf(&b, `<line x1="%d" y1="376" x2="%d" y2="376" stroke="%s" stroke-width="3" stroke-dasharray="%s"/>`, x, x+24, colors[i], dash)
		fmt.Fprintf(&b, `<text x="%d" y="380">%s</text>`+"\n", x+30, o.Steering)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (p *panel) x(v float64) float64 { return p.left + v/p.maxX*p.width }
func (p *panel) y(v float64) float64 { return p.top + p.height - v/p.maxY*p.height }

// axes draws a frame with a title, a grid and its labels.
func (p *panel) axes(title string, stepX, stepY float64, label func(float64) string) {
	fmt.Fprintf(p, `<text x="%.1f" y="%.1f" font-weight="bold">%s</text>`+"\n", p.left, p.top-14, title)
	for v := 0.0; v <= p.maxX+1e-9; v += stepX {
		fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, p.x(v), p.top, p.x(v), p.top+p.height)
		fmt.Fprintf(p, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", p.x(v), p.top+p.height+18, label(v))
	}
	for v := 0.0; v <= p.maxY+1e-9; v += stepY {
		fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, p.left, p.y(v), p.left+p.width, p.y(v))
		fmt.Fprintf(p, `<text x="%.1f" y="%.1f" text-anchor="end">%.0f %%</text>`+"\n", p.left-8, p.y(v)+4, 100*v)
	}
}

// line draws points as a line.
func (p *panel) line(color, dash string, points [][2]float64) {
	fmt.Fprintf(p, `<polyline fill="none" stroke="%s" stroke-width="1.6" stroke-dasharray="%s" points="`, color, dash)
	for _, at := range points {
		fmt.Fprintf(p, "%.1f,%.1f ", p.x(at[0]), p.y(at[1]))
	}
	p.WriteString(`"/>` + "\n")
}
