package workflowtest

import (
	"fmt"
	"maps"
	"slices"

	"github.com/rhysd/actionlint"
)

// matrices are the combinations of a job's matrix, one empty one if it has none.
// Combinations that add to others, or exclude, are not known.
func (s *scope) matrices(job *actionlint.Job) ([]map[string]any, error) {
	if job.Strategy == nil || job.Strategy.Matrix == nil {
		return []map[string]any{{}}, nil
	}
	m := job.Strategy.Matrix
	if m.Expression != nil || m.Exclude != nil || m.Include != nil && (m.Include.Expression != nil || len(m.Rows) > 0) {
		return nil, fmt.Errorf("%s: job %s: a matrix of an unknown form", s.file.Name, job.ID.Value)
	}
	all := []map[string]any{{}}
	for _, name := range slices.Sorted(maps.Keys(m.Rows)) {
		values, err := s.rowValues(name, m.Rows[name])
		if err != nil {
			return nil, err
		}
		var more []map[string]any
		for _, combination := range all {
			for _, v := range values {
				c := maps.Clone(combination)
				c[name] = v
				more = append(more, c)
			}
		}
		all = more
	}
	if m.Include == nil {
		return all, nil
	}
	all = nil
	for _, include := range m.Include.Combinations {
		c := map[string]any{}
		for _, a := range include.Assigns {
			c[a.Key.Value] = plain(a.Value)
		}
		all = append(all, c)
	}
	return all, nil
}

func (s *scope) rowValues(name string, row *actionlint.MatrixRow) (values []any, err error) {
	if row.Expression == nil {
		for _, v := range row.Values {
			values = append(values, plain(v))
		}
		return values, nil
	}
	expr := row.Expression.Value
	v, err := s.value(expr[len("${{") : len(expr)-len("}}")])
	if err != nil {
		return nil, err
	}
	values, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s: matrix %s is no list: %v", s.file.Name, name, v)
	}
	return values, nil
}

// plain is a value of a matrix as a string.
func plain(v actionlint.RawYAMLValue) any {
	if s, ok := v.(*actionlint.RawYAMLString); ok {
		return s.Value
	}
	return v.String()
}
