//go:build tools

// Package tools keeps Jaeger's main package among this module's requirements, so that `go mod tidy`
// writes the checksums of everything its build needs.
package tools

import _ "github.com/jaegertracing/jaeger/cmd/jaeger"
