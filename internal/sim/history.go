package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// The kinds of operation that clients perform on a key.
const (
	opRead   = "read"
	opAppend = "append" // add an element to the key's list; answers the list
	opSet    = "set"    // replace the list by one element
	opClaim  = "claim"  // set unless there is a list; answers whether
	opDelete = "delete"
)

type input struct{ op, key, value string }

type output struct {
	value   string // the list read, or the list after the write
	refused bool   // of opClaim
	unknown bool   // nobody knows whether, or with which answer, it happened
}

// never is the return time of operations whose outcome is unknown.
const never = int64(1) << 40

// model is a map of lists. A list is kept as its elements joined by commas.
func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			var keys []string
			parts := map[string][]porcupine.Operation{}
			for _, o := range history {
				key := o.Input.(input).key
				if _, ok := parts[key]; !ok {
					keys = append(keys, key)
				}
				parts[key] = append(parts[key], o)
			}
			all := make([][]porcupine.Operation, 0, len(keys))
			for _, key := range keys {
				all = append(all, parts[key])
			}
			return all
		},
		Init: func() any { return "" },
		Step: func(state, in, out any) (bool, any) { return step(state.(string), in.(input), out.(output)) },
		DescribeOperation: func(in, out any) string {
			return fmt.Sprintf("%v -> %v", in, out)
		},
	}
}

func step(state string, in input, out output) (bool, any) {
	switch in.op {
	case opRead:
		return out.value == state, state
	case opDelete:
		return true, ""
	case opSet:
		return true, in.value
	case opClaim:
		if state != "" {
			return out.refused || out.unknown, state
		}
		return !out.refused, in.value
	default:
		next := appendTo(state, in.value)
		return out.unknown || out.value == next, next
	}
}

func appendTo(list, value string) string {
	if list == "" {
		return value
	}
	return list + "," + value
}

// occurrences counts value among the elements of a list.
func occurrences(list, value string) int {
	n := 0
	for e := range strings.SplitSeq(list, ",") {
		if e == value {
			n++
		}
	}
	return n
}

// check returns a description of what is wrong with a history, or "".
func check(history []porcupine.Operation) string {
	if porcupine.CheckOperations(model(), history) {
		return ""
	}
	sorted := slices.Clone(history)
	slices.SortStableFunc(sorted, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	b.WriteString("the history is not linearizable:\n")
	for _, o := range sorted {
		ret := fmt.Sprint(o.Return)
		if o.Return == never {
			ret = "?"
		}
		fmt.Fprintf(&b, "  client %d [%d, %s] %v -> %+v\n", o.ClientId, o.Call, ret, o.Input, o.Output)
	}
	return b.String()
}
