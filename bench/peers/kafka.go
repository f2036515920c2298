package main

import (
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

const (
	kafkaVersion = "4.1.1" // as pom.xml has it
	clusterID    = "VGFpbGJvdW5kUGVlcnNBQQ"
)

//go:embed pom.xml
var pom []byte

// jars is the directory with Kafka's jars: KAFKA_LIBS, or a cache that is filled
// once from Maven Central.
func jars() (string, error) {
	if dir := os.Getenv("KAFKA_LIBS"); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tailbound-peers", "kafka-"+kafkaVersion)
	done := filepath.Join(dir, "complete")
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	project := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(project, pom, 0o644); err != nil {
		return "", err
	}
	out, err := exec.Command("mvn", "-q", "-B", "-f", project, "dependency:copy-dependencies", "-DoutputDirectory="+dir).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("fetching Kafka's jars from Maven Central: %w: %s", err, out)
	}
	return dir, os.WriteFile(done, nil, 0o644)
}

// serveKafka becomes a Kafka broker, with these properties (NAME=VALUE) besides.
func serveKafka(addr, dir string, flush bool, more []string) error {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	libs, err := jars()
	if err != nil {
		return err
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	controller := net.JoinHostPort(host, strconv.Itoa(port+1))
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%s
listeners=PLAINTEXT://%s,CONTROLLER://%s
advertised.listeners=PLAINTEXT://%s
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=%s
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
`, controller, addr, controller, addr, filepath.Join(dir, "logs"))
	if flush {
		properties += "log.flush.interval.messages=1\n"
	}
	for _, p := range more {
		properties += p + "\n"
	}
	file := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(file, []byte(properties), 0o644); err != nil {
		return err
	}
	classes := filepath.Join(libs, "*")
	if out, err := exec.Command(java, "-cp", classes, "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", clusterID, "-c", file).CombinedOutput(); err != nil {
		return fmt.Errorf("formatting: %w: %s", err, out)
	}
	return syscall.Exec(java, []string{"java", "-Xms2g", "-Xmx2g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-cp", classes, "kafka.Kafka", file}, os.Environ())
}
