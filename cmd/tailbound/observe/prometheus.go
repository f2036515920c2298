package observe

import (
	"net"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tailbound/tailbound/metrics"
)

// PrometheusServer serves /metrics: the figures of the profile as Prometheus's text.
// A scrape asks the shards, as a profile does.
type PrometheusServer struct {
	door door
	http http.Server
}

// ServePrometheus answers scrapes at the address of --metrics-listen, on goroutines, until
// Close. If the address cannot be had, the broker serves without: said is given the error,
// the address is tried again, and said is called with nil once it is had.
func ServePrometheus(at string, server *Server, said func(error)) *PrometheusServer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(shardCollector{server}, goCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	s := &PrometheusServer{http: http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}}
	s.door.said = said
	s.door.listen = func() (net.Listener, error) {
		return net.Listen("tcp", at)
	}
	s.door.serve = s.http.Serve
	s.door.open()
	return s
}

// Listening reports that the address was had.
func (s *PrometheusServer) Listening() bool { return s.door.isOpen() }

// Close frees the address and ends answering.
func (s *PrometheusServer) Close() {
	s.door.close() // first: it knows then why answering ends
	s.http.Close()
}

// bucketsNS are the buckets of every histogram: three a decade, 1 us to 10 s.
var bucketsNS = func() (all []int64) {
	for d := int64(1e3); d <= 1e9; d *= 10 {
		all = append(all, d, 2*d, 5*d)
	}
	return append(all, 10e9)
}()

var (
	descStage = prometheus.NewDesc("tailbound_stage_seconds", "How long requests took to get to a stage from the one before it.", []string{"shard", "kind", "stage"}, nil)
	descTotal = prometheus.NewDesc("tailbound_request_seconds", "How long requests took, from their last byte's receipt until their reply was sent.", []string{"shard", "kind"}, nil)
	descTurn  = prometheus.NewDesc("tailbound_turn_seconds", "How long turns of a shard took.", []string{"shard"}, nil)
	descUsed  = prometheus.NewDesc("tailbound_pool_used", "How much of a shard's pool is used.", []string{"shard", "pool"}, nil)
	descPeak  = prometheus.NewDesc("tailbound_pool_peak", "The most of a shard's pool that was ever used, where it is kept.", []string{"shard", "pool"}, nil)
	descMax   = prometheus.NewDesc("tailbound_pool_max", "How much a shard's pool has.", []string{"shard", "pool"}, nil)
	descLate  = prometheus.NewDesc("tailbound_shard_late", "1 where a shard took no turn in time to be asked.", []string{"shard"}, nil)
	descSLO   = prometheus.NewDesc("tailbound_slo_requests_total", "Requests of a topic that has latency.slo.ms.", []string{"topic"}, nil)
	descMiss  = prometheus.NewDesc("tailbound_slo_missed_total", "Of those, the ones that took longer.", []string{"topic"}, nil)
	descBurn  = prometheus.NewDesc("tailbound_slo_burn_rate", "How many times as fast as it lasts 30 days a topic's error budget is spent.", []string{"topic", "window"}, nil)
	descSize  = prometheus.NewDesc("tailbound_disk_size_bytes", "Size of the data directory's file system.", nil, nil)
	descFree  = prometheus.NewDesc("tailbound_disk_free_bytes", "What the broker may still use of it.", nil, nil)
	descNodes = prometheus.NewDesc("tailbound_disk_inodes", "Inodes of the data directory's file system, where their number is fixed.", nil, nil)
	descNodeF = prometheus.NewDesc("tailbound_disk_free_inodes", "Of those, the ones that are free.", nil, nil)
	descInfo  = prometheus.NewDesc("tailbound_info", "The version that runs.", []string{"version"}, nil)
)

// goCollector has, beside what is usual, what the last collection found to be live. The
// limit that starts a collection is go_gc_gomemlimit_bytes, and collections are counted by
// go_gc_duration_seconds and, by what started them, go_gc_cycles_*.
func goCollector() prometheus.Collector {
	return collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(
		collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/(heap/live|cycles/.*):`)}))
}

// shardCollector collects from the shards, at each scrape.
type shardCollector struct{ p *Server }

// Describe describes nothing: which counters there are is known when shards answer
// (an unchecked collector, in the words of client_golang).
func (shardCollector) Describe(chan<- *prometheus.Desc) {}

// Collect asks the shards, and has the figures of those that did not answer in time
// as they were.
func (c shardCollector) Collect(out chan<- prometheus.Metric) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	late := make([]bool, len(c.p.collectors))
	if c.p.broker != nil {
		c.p.collect(late)
	}
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	gauge(descInfo, 1, c.p.version)
	disk := readDisk(c.p.dir)
	gauge(descSize, float64(disk.SizeBytes))
	gauge(descFree, float64(disk.FreeBytes))
	gauge(descNodes, float64(disk.Inodes))
	gauge(descNodeF, float64(disk.FreeInodes))
	for _, topic := range c.p.slo().Topics {
		out <- prometheus.MustNewConstMetric(descSLO, prometheus.CounterValue, float64(topic.Requests), topic.Topic)
		out <- prometheus.MustNewConstMetric(descMiss, prometheus.CounterValue, float64(topic.Missed), topic.Topic)
		for _, window := range topic.Windows {
			gauge(descBurn, window.Burn, topic.Topic, windowText(window.Seconds))
		}
	}
	for i, collector := range c.p.collectors {
		shard := strconv.Itoa(i)
		isLate := 0.0
		if late[i] {
			isLate = 1
		}
		gauge(descLate, isLate, shard)
		for _, counter := range collector.Counters() {
			desc := prometheus.NewDesc("tailbound_"+counter.Name+"_total", "A counter of a shard; metrics/counters.go says what it counts.", []string{"shard"}, nil)
			out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(counter.Value), shard)
		}
		for _, pool := range collector.Total().Gauges() {
			gauge(descUsed, float64(pool.Used), shard, pool.Name)
			gauge(descMax, float64(pool.Max), shard, pool.Name)
			if pool.Peak > 0 {
				gauge(descPeak, float64(pool.Peak), shard, pool.Name)
			}
		}
		export := func(histogram *metrics.Histogram, desc *prometheus.Desc, labels ...string) {
			if histogram.Count() > 0 {
				out <- prometheus.MustNewConstHistogram(desc, uint64(histogram.Count()), float64(histogram.SumNS())/1e9, cumulative(histogram), labels...)
			}
		}
		for kind := range metrics.Kinds {
			export(collector.Total().Step(kind, metrics.Received), descTotal, shard, kind.Name())
			for stage := metrics.Parsed; stage < metrics.Stages; stage++ {
				export(collector.Total().Step(kind, stage), descStage, shard, kind.Name(), stage.Name(kind))
			}
		}
		export(collector.Total().Turn(), descTurn, shard)
	}
}

// cumulative is the number of values up to each of bucketsNS, exact to the two
// significant digits of a histogram.
func cumulative(histogram *metrics.Histogram) map[float64]uint64 {
	all := make(map[float64]uint64, len(bucketsNS))
	have, n, i := histogram.Buckets(), uint64(0), 0
	for _, upTo := range bucketsNS {
		for i < len(have) && have[i].UpToNS <= upTo+upTo/100+63 {
			n += uint64(have[i].Count)
			i++
		}
		all[float64(upTo)/1e9] = n
	}
	return all
}
