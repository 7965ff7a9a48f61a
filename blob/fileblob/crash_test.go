package fileblob_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/fileblob"
)

// The tests of this file run the test binary again as a child, told by
// childVariable what to do, and kill it.
const childVariable = "CELLER_TEST_FILEBLOB_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childVariable); job != "" {
		err := child(strings.Fields(job))
		switch {
		case errors.Is(err, errNoMount):
			os.Exit(3)
		case err != nil:
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child is "write DIR SEED [K]", "race DIR NAME" or "small DIR".
func child(job []string) error {
	if job[0] == "small" {
		return smallChild(job[1])
	}
	b, err := fileblob.Open(job[1], fileblob.Options{})
	if err != nil {
		return err
	}
	if job[0] == "race" {
		return errors.Join(raceChild(b, job[2]), b.Close())
	}
	seed, err := strconv.ParseUint(job[2], 10, 64)
	if err != nil {
		return err
	}
	if len(job) > 3 {
		k, err := strconv.Atoi(job[3])
		if err != nil {
			return err
		}
		b.SetStep(func(string) error {
			if k--; k == 0 {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return nil
		})
	}
	return writeChild(b, seed)
}

// sealed makes a body that proves to be whole.
func sealed(text string, pad int) []byte {
	body := append([]byte(text+"\n"), bytes.Repeat([]byte{'.'}, pad)...)
	sum := sha256.Sum256(body)
	return append(body, hex.EncodeToString(sum[:])...)
}

// unseal returns the text of a body, or an error if it is not whole.
func unseal(body []byte) (string, error) {
	n := len(body) - 2*sha256.Size
	if n < 0 {
		return "", fmt.Errorf("torn: %d bytes", len(body))
	}
	if sum := sha256.Sum256(body[:n]); hex.EncodeToString(sum[:]) != string(body[n:]) {
		return "", fmt.Errorf("torn: %d bytes do not have their sum", len(body))
	}
	text, _, _ := strings.Cut(string(body), "\n")
	return text, nil
}

// writeChild creates, puts and swaps for ever. Each line it prints is an
// acknowledgement: a key and the text of what is stored there.
func writeChild(b *fileblob.Bucket, seed uint64) error {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 0))
	for n := 0; ; n++ {
		text := fmt.Sprintf("%d.%d", seed, n)
		body := sealed(text, rng.IntN(20_000))
		var key blob.Key
		switch n % 3 {
		case 0:
			key = blob.Key(fmt.Sprintf("log/%d/%d", seed, n))
			if _, err := b.Create(ctx, key, body); err != nil {
				return err
			}
		case 1:
			key = blob.Key(fmt.Sprintf("pack/%d/%d/%d", seed, n/30, n))
			if _, err := b.Put(ctx, key, body); err != nil {
				return err
			}
		case 2:
			key = "ROOT"
			_, tag, err := b.Get(ctx, key)
			switch {
			case errors.Is(err, blob.ErrNotExist):
				_, err = b.Create(ctx, key, body)
			case err == nil:
				_, err = b.Swap(ctx, key, tag, body)
			}
			if err != nil {
				return err
			}
		}
		if _, err := fmt.Printf("%s %s\n", key, text); err != nil {
			return err
		}
	}
}

// run starts a child and returns what it acknowledged until it was killed.
func run(t *testing.T, dir string, seed int, args string, kill func(acks int, elapsed time.Duration) bool) (acks [][2]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=write %s %d %s", childVariable, dir, seed, args))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil { // the last line may be torn: then it was not acknowledged
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		key, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		acks = append(acks, [2]string{key, text})
		if kill(len(acks), time.Since(began)) {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Fatalf("child was not killed: %v %s", err, stderr.Bytes())
	}
	return acks
}

// wantWhole opens the bucket as the next process would and checks what it holds.
func wantWhole(t *testing.T, dir string, acks [][2]string) {
	t.Helper()
	b, err := fileblob.Open(dir, fileblob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	last := map[string]string{}
	for _, ack := range acks {
		last[ack[0]] = ack[1]
	}
	for info, err := range b.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := b.Get(t.Context(), info.Key)
		if err != nil {
			t.Fatal(err)
		}
		text, err := unseal(body)
		if err != nil {
			t.Errorf("%s: %v", info.Key, err)
		}
		want, acked := last[string(info.Key)]
		delete(last, string(info.Key))
		if acked && info.Key != "ROOT" && text != want {
			t.Errorf("%s holds %s, acknowledged was %s", info.Key, text, want)
		}
		if acked && info.Key == "ROOT" && number(t, text) < number(t, want) {
			t.Errorf("ROOT went back to %s, acknowledged was %s", text, want)
		}
	}
	for key := range last {
		t.Errorf("%s was acknowledged and is not there", key)
	}
	temps, err := os.ReadDir(filepath.Join(dir, ",tmp"))
	if err != nil {
		t.Fatal(err)
	}
	if len(temps) != 1 { // this bucket's own lock
		t.Errorf("%d files are left in ,tmp: %v", len(temps), temps)
	}
}

// number orders the texts of one child after those of earlier ones.
func number(t *testing.T, text string) float64 {
	t.Helper()
	seed, n, _ := strings.Cut(text, ".")
	a, err1 := strconv.Atoi(seed)
	b, err2 := strconv.Atoi(n)
	if err1 != nil || err2 != nil {
		t.Fatalf("text %q is not SEED.N", text)
	}
	return float64(a)*1e9 + float64(b)
}

// TestKilledAtRandom kills a writer at random moments, many times on one bucket.
func TestKilledAtRandom(t *testing.T) {
	kills := 25
	if testing.Short() {
		kills = 5
	}
	dir := t.TempDir()
	var acks [][2]string
	total := 0
	for seed := range kills {
		limit := rand.IntN(40)
		more := run(t, dir, seed, "", func(n int, _ time.Duration) bool { return n > limit })
		total += len(more)
		acks = append(acks, more...)
		wantWhole(t, dir, acks)
	}
	t.Logf("%d acknowledged writes, %d kills", total, kills)
}

// TestKilledAtEveryStep kills a writer before each of its first system calls.
func TestKilledAtEveryStep(t *testing.T) {
	steps := 40
	if testing.Short() {
		steps = 12
	}
	for k := 1; k <= steps; k++ {
		dir := t.TempDir()
		acks := run(t, dir, 0, strconv.Itoa(k), func(int, time.Duration) bool { return false })
		wantWhole(t, dir, acks)
		// And the next one can go on.
		more := run(t, dir, 1, "", func(n int, _ time.Duration) bool { return n > 3 })
		wantWhole(t, dir, append(acks, more...))
	}
}

const raceKeys, raceSteps = 60, 40

// raceChild tries to create the same keys and to raise the same number as
// everybody else, and prints what it won.
func raceChild(b *fileblob.Bucket, name string) error {
	ctx := context.Background()
	for i := range raceKeys {
		key := blob.Key(fmt.Sprintf("log/%d", i))
		switch _, err := b.Create(ctx, key, []byte(name)); {
		case err == nil:
			fmt.Printf("%s %s\n", key, name)
		case !errors.Is(err, blob.ErrExist):
			return err
		}
	}
	for mine := 0; mine < raceSteps; {
		body, tag, err := b.Get(ctx, "counter")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(body))
		if err != nil {
			return err
		}
		switch _, err := b.Swap(ctx, "counter", tag, []byte(strconv.Itoa(n+1))); {
		case err == nil:
			mine++
			fmt.Printf("counter %d\n", n+1)
		case !errors.Is(err, blob.ErrChanged):
			return err
		}
	}
	return nil
}

// TestProcessesRace lets processes fight for the same keys.
func TestProcessesRace(t *testing.T) {
	const processes = 3
	dir := t.TempDir()
	b := open(t, dir)
	if _, err := b.Create(t.Context(), "counter", []byte("0")); err != nil {
		t.Fatal(err)
	}
	outs := make([]bytes.Buffer, processes)
	cmds := make([]*exec.Cmd, processes)
	for i := range processes {
		cmds[i] = exec.CommandContext(t.Context(), os.Args[0])
		cmds[i].Env = append(os.Environ(), fmt.Sprintf("%s=race %s child%d", childVariable, dir, i))
		cmds[i].Stdout, cmds[i].Stderr = &outs[i], os.Stderr
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	won := map[string]string{}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(outs[i].String()) {
			line = strings.TrimSpace(line)
			what, name, _ := strings.Cut(line, " ")
			if what == "counter" {
				what, name = line, fmt.Sprintf("child%d", i)
			}
			if other, taken := won[what]; taken {
				t.Errorf("%s was won by %s and by %s", what, other, name)
			}
			won[what] = name
		}
	}
	for i := range raceKeys {
		key := fmt.Sprintf("log/%d", i)
		body, _, err := b.Get(t.Context(), blob.Key(key))
		if err != nil || string(body) != won[key] {
			t.Errorf("%s holds %q (%v), won by %q", key, body, err, won[key])
		}
	}
	if body, _, err := b.Get(t.Context(), "counter"); err != nil || string(body) != strconv.Itoa(processes*raceSteps) {
		t.Errorf("counter is %q (%v), want %d", body, err, processes*raceSteps)
	}
}
