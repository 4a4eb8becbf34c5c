package lab

import (
	"context"
	"fmt"
	"net/netip"

	"anyedge/configs"
	"anyedge/internal/ops"
	"anyedge/pop"
)

// adminAddress is a PoP's admin API.
func (l *Lab) adminAddress(p configs.LabPop) netip.AddrPort {
	for i := range l.cfg.Pops {
		if l.cfg.Pops[i].Name == p.Name {
			return netip.AddrPortFrom(l.layout.pop(i), portAdmin)
		}
	}
	return netip.AddrPort{}
}

func (l *Lab) adminURL(p configs.LabPop, path string) string {
	return fmt.Sprintf("http://%s%s", l.adminAddress(p), path)
}

// admin reads from a PoP's admin API.
func (l *Lab) admin(ctx context.Context, p configs.LabPop, path string, out any) error {
	return ops.Client{Address: l.adminAddress(p)}.Get(ctx, path, out)
}

func (l *Lab) status(ctx context.Context, p configs.LabPop) (s pop.Status, err error) {
	err = l.admin(ctx, p, "/v1/status", &s)
	return s, err
}

// drain begins or ends the drain of a PoP, as "anyedge drain" does.
func (l *Lab) drain(ctx context.Context, p configs.LabPop, begin bool) error {
	req := map[string]any{"scope": "pop", "name": p.Name, "drain": begin, "by": "lab"}
	return ops.Client{Address: l.adminAddress(p)}.Post(ctx, "/v1/drain", req, nil)
}
