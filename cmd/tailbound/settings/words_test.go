package settings

import (
	"strings"
	"testing"
)

func TestListeners(t *testing.T) {
	for _, c := range []struct {
		listen, advertise string
		want              string // name listen advertise, of each; or what the error says
	}{
		{"127.0.0.1:9092", "", " 127.0.0.1:9092 "},
		{"[::]:9092", "broker:19092", " [::]:9092 broker:19092"},
		{":9092", "::1", " :9092 ::1"},
		{"a=:9092, b=[::1]:9192", "b=outside:443", "a :9092 ;b [::1]:9192 outside:443"},
		{"a=:9092,b=:9192", "a=x,b=y:1", "a :9092 x;b :9192 y:1"},
		{"INSIDE=:9092", "host", "for each listener"},
		{":9092,:9192", "", "a name of its own"},
		{"a=:9092,:9192", "", "a name of its own"},
		{"a=:9092,a=:9192", "", "a name of its own"},
		{"a b=:9092", "", "no name for a listener"},
		{"a=:9092,b=:9192", "c=host", `no listener "c"`},
		{"a=:9092", "a=x,a=y", "twice"},
		{"a=:9092,b=9192", "", "HOST:PORT"},
		{"a=:65534", "", "counted"},
		{"a=:1,b=:2,c=:3,d=:4,e=:5,f=:6,g=:7,h=:8,i=:9", "", "there may be 8"},
		{":9092", "host:70000", "is not a port"},
	} {
		all, err1, err2 := ParseListeners(c.listen, c.advertise, 3)
		got := ""
		for i, l := range all {
			if i > 0 {
				got += ";"
			}
			got += l.Name + " " + l.Listen + " " + l.Advertise
		}
		if err1 != nil {
			got = err1.Error()
		} else if err2 != nil {
			got = err2.Error()
		}
		if got != c.want && (err1 == nil && err2 == nil || !strings.Contains(got, c.want)) {
			t.Errorf("--listen %s --advertise %s: %q, want %q", c.listen, c.advertise, got, c.want)
		}
	}
}
