// Package check proves that what the Prometheus rules and the Grafana dashboards name
// exists. It is a module of its own, because Prometheus' parser would bring more
// dependencies than the programs themselves have.
package check
