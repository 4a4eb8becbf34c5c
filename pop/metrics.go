package pop

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"anyedge/internal/fleet"
	"anyedge/pop/guard"
	"anyedge/pop/rollout"
)

// metrics are the agent's own. Labels come from closed sets or from the
// config.
type metrics struct {
	announcement  *prometheus.GaugeVec   // 1 for the present one, by announcement
	transitions   *prometheus.CounterVec // by announcement
	drainStage    *prometheus.GaugeVec   // 1 for the present one, by stage
	override      *prometheus.GaugeVec   // 1 for the one in force, by action
	refusals      *prometheus.CounterVec // of withdrawals, by cause
	crashes       prometheus.Counter
	hangs         prometheus.Counter
	probeFailures *prometheus.CounterVec // by check
	reloads       *prometheus.CounterVec // by result
	configAge     prometheus.Gauge
	generation    prometheus.Gauge
	fleet         prometheus.Gauge
	shed          prometheus.Gauge
	stateErrors   prometheus.Counter

	rolloutPhase      *prometheus.GaugeVec // 1 for the present one, by phase
	rolloutGeneration prometheus.Gauge
	rolloutReturns    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		announcement: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "anyedge_pop_announcement", Help: "1 for how the service prefixes are announced now."}, []string{"announcement"}),
		transitions: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "anyedge_pop_announcement_changes_total", Help: "Changes of the announcement, by what it became."}, []string{"announcement"}),
		drainStage: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "anyedge_pop_drain_stage", Help: "1 for the stage that a drain has reached."}, []string{"stage"}),
		override: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "anyedge_pop_override", Help: "1 for the action of the override in force for all of the node."}, []string{"action"}),
		refusals: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "anyedge_pop_withdraw_refusals_total", Help: "Withdrawals that the guard refused, by cause."}, []string{"cause"}),
		crashes: auto.NewCounter(prometheus.CounterOpts{
			Name: "anyedge_pop_worker_crashes_total", Help: "Worker processes that ended by themselves."}),
		hangs: auto.NewCounter(prometheus.CounterOpts{
			Name: "anyedge_pop_worker_hangs_total", Help: "Worker processes killed because they did not serve."}),
		probeFailures: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "anyedge_pop_probe_failures_total", Help: "Failed requests through a service address."}, []string{"check"}),
		reloads: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "anyedge_pop_config_reloads_total", Help: "Config reloads, by result."}, []string{"result"}),
		configAge: auto.NewGauge(prometheus.GaugeOpts{
			Name: "anyedge_pop_config_last_good_timestamp_seconds", Help: "When the worker last took a new state."}),
		generation: auto.NewGauge(prometheus.GaugeOpts{
			Name: "anyedge_pop_config_generation", Help: "The generation of the worker's state."}),
		fleet: auto.NewGauge(prometheus.GaugeOpts{
			Name: "anyedge_pop_fleet_connected", Help: "1 while the fleet store answers."}),
		shed: auto.NewGauge(prometheus.GaugeOpts{
			Name: "anyedge_pop_shed_ratio", Help: "The share of new requests that the worker is to refuse for lack of room, 0 to 1."}),
		stateErrors: auto.NewCounter(prometheus.CounterOpts{
			Name: "anyedge_pop_state_file_errors_total", Help: "Failed writes of the state file."}),
		rolloutPhase: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "anyedge_pop_rollout_phase", Help: "1 for the phase of the newest rollout of configs."}, []string{"phase"}),
		rolloutGeneration: auto.NewGauge(prometheus.GaugeOpts{
			Name: "anyedge_pop_rollout_generation", Help: "The generation of the newest rollout of configs."}),
		rolloutReturns: auto.NewCounter(prometheus.CounterOpts{
			Name: "anyedge_pop_rollout_returns_total", Help: "Times this node left the config of a rollout for the one before."}),
	}
	for _, cause := range guard.Causes() {
		m.refusals.WithLabelValues(string(cause))
	}
	return m
}

// show sets the gauges of a state.
func (m *metrics) show(s state) {
	for _, a := range Announcements() {
		m.announcement.WithLabelValues(string(a)).Set(truth(a == s.Announced))
	}
	for _, action := range []string{fleet.ActionAnnounce, fleet.ActionDepreference, fleet.ActionWithdraw} {
		m.override.WithLabelValues(action).Set(truth(s.Orders.Override != nil && s.Orders.Override.Action == action))
	}
	m.shed.Set(float64(s.Shed) / 100)
	for _, d := range DrainStages() {
		m.drainStage.WithLabelValues(string(d)).Set(truth(d == s.Drain.stage))
	}
}

// showRollout sets the gauges of a rollout.
func (m *metrics) showRollout(r rollout.Rollout) {
	for _, p := range rollout.Phases() {
		m.rolloutPhase.WithLabelValues(string(p)).Set(truth(p == r.Phase))
	}
	m.rolloutGeneration.Set(float64(r.Generation))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
