// Package leasehold holds locks of a leasehold server. It needs nothing but Go's own library.
//
//	err := leasehold.With(ctx, leasehold.Lock{Key: "order:42", TTL: 10 * time.Second, Wait: 30 * time.Second},
//		func(ctx context.Context, held *leasehold.Held) error {
//			return pay(ctx, held.FencingToken) // the resource refuses a smaller one than it has seen
//		}) // ctx is done once the lock may be somebody else's
//
// What a client must get right, and where it is done here:
//
//   - The deadline is counted by this process's clock from before the request was sent (extended), so that it is never later
//     than the server's. Once it is over the lock counts as lost, whatever the server may say later.
//   - The token is chosen here, so that a request whose answer was lost can be sent again and brings the same lock.
//   - A heartbeat every third of the TTL; one that is not answered is sent again until the deadline.
//   - The lock is given back even if it is not known whether it was granted.
package leasehold

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	longestRound = 20 * time.Second // one request waits no longer, since proxies cut those that do
	pause        = 250 * time.Millisecond
)

var (
	// ErrNotAcquired: somebody else has the lock, or the server could not be asked, until the wait was over.
	ErrNotAcquired = errors.New("lock not acquired")
	// ErrLost: the lock has ended before it was released, or nobody can tell.
	ErrLost = errors.New("lock lost")
)

// Refused is the server's answer to a request that it will never grant. Code is stable.
type Refused struct {
	Code, Detail string
	Status       int
}

func (r *Refused) Error() string { return r.Detail }

func (r *Refused) tryLater() bool {
	switch r.Code {
	case "held", "timeout", "queue_full", "rate_limited":
		return true
	}
	return r.Status >= 500
}

// Lock is what is asked for. The zero TTL is 30 seconds; the zero Wait is now or never.
type Lock struct {
	Key       string
	TTL, Wait time.Duration
	Owner     string
	Server    string // by default $LEASEHOLD_SERVER, or http://127.0.0.1:7420
	Bearer    string // by default $LEASEHOLD_TOKEN
}

// Held is a lock that was granted.
type Held struct {
	FencingToken uint64

	lock     Lock
	token    string
	mutex    sync.Mutex
	deadline time.Time
}

type granted struct {
	FencingToken uint64 `json:"fencing_token"`
	WaitedMs     int64  `json:"waited_ms"`
	RemainingMs  int64  `json:"remaining_ms"`
}

// With calls work while the lock is held and kept. The context of work is done when the lock is lost; With answers
// ErrLost then, unless work had an error of its own.
func With(ctx context.Context, lock Lock, work func(context.Context, *Held) error) error {
	lock = lock.withDefaults()
	held, err := lock.acquire(ctx, time.Now().Add(lock.Wait))
	if err != nil {
		return err
	}
	working, stop := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() { defer close(kept); held.keep(working, stop) }()
	// Also when work panics.
	defer func() { stop(); <-kept; held.release() }()
	err = work(working, held)
	if err == nil && held.Remaining() == 0 {
		err = ErrLost
	}
	return err
}

// Remaining is how long the lock lasts if no heartbeat comes through; 0 once it is lost.
func (h *Held) Remaining() time.Duration {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if left := time.Until(h.deadline); left > 0 {
		return left
	}
	return 0
}

func (h *Held) extended(sent time.Time, leftMs int64) {
	// Less what two clocks may differ by: a hundredth of the TTL, and two milliseconds at least.
	drift := h.lock.TTL / 100
	if drift < 2*time.Millisecond {
		drift = 2 * time.Millisecond
	}
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.deadline = sent.Add(time.Duration(leftMs)*time.Millisecond - drift)
}

func (h *Held) lose() {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.deadline = time.Time{}
}

func (l Lock) acquire(ctx context.Context, end time.Time) (held *Held, err error) {
	held = &Held{lock: l, token: newToken()}
	defer func() {
		if err != nil {
			held.release() // of an answer that was lost the server may have granted it
		}
	}()
	var why error
	for why == nil || time.Now().Before(end) {
		sent, wait := time.Now(), time.Until(end)
		if wait > longestRound {
			wait = longestRound
		} else if wait < 0 {
			wait = 0
		}
		asks := map[string]any{"key": l.Key, "token": held.token, "owner": l.Owner,
			"ttl_ms": l.TTL.Milliseconds(), "wait_ms": wait.Milliseconds()}
		var answer granted
		why = l.post(ctx, "/acquire", asks, wait+5*time.Second, &answer)
		var refused *Refused
		switch {
		case why == nil:
			held.FencingToken = answer.FencingToken
			held.extended(sent, answer.WaitedMs+answer.RemainingMs)
			if held.Remaining() > 0 {
				return held, nil
			}
			why = errors.New("its turn came while this process did not run")
			held.release()
			held.token = newToken()
		case ctx.Err() != nil:
			return held, ctx.Err()
		case errors.As(why, &refused) && !refused.tryLater():
			return held, why
		}
		if refused == nil || refused.Code != "timeout" {
			sleep(ctx, min(pause, time.Until(end)))
		}
	}
	return held, fmt.Errorf("%w: %s: %v", ErrNotAcquired, l.Key, why)
}

// keep sends heartbeats until the work is done, or calls lost once the lock has ended.
func (h *Held) keep(working context.Context, lost context.CancelFunc) {
	next := h.lock.TTL / 3
	for {
		sleep(working, min(next, h.Remaining()))
		if working.Err() != nil {
			return
		}
		if h.Remaining() == 0 {
			lost()
			return
		}
		sent := time.Now()
		beat := map[string]any{"key": h.lock.Key, "token": h.token, "ttl_ms": h.lock.TTL.Milliseconds()}
		var answer granted
		// An answer after the deadline would be of no use.
		err := h.lock.post(working, "/heartbeat", beat, h.Remaining(), &answer)
		var refused *Refused
		switch {
		case err == nil:
			h.extended(sent, answer.RemainingMs)
			next = h.lock.TTL / 3
		case errors.As(err, &refused) && !refused.tryLater():
			h.lose()
			lost()
			return
		default:
			next = pause
		}
	}
}

func (h *Held) release() {
	body := map[string]any{"key": h.lock.Key, "token": h.token}
	// Where that fails, the lock ends with its TTL.
	_ = h.lock.post(context.Background(), "/release", body, 2*time.Second, nil)
}

func (l Lock) post(ctx context.Context, path string, body any, timeout time.Duration, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(l.Server, "/")+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if l.Bearer != "" {
		request.Header.Set("Authorization", "Bearer "+l.Bearer)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		if answer == nil {
			return nil
		}
		return json.NewDecoder(response.Body).Decode(answer)
	}
	// A proxy's own page is no problem document.
	refused := Refused{Code: "unknown", Detail: response.Status}
	_ = json.NewDecoder(response.Body).Decode(&refused)
	refused.Status = response.StatusCode
	return &refused
}

func (l Lock) withDefaults() Lock {
	set := func(value *string, otherwise ...string) {
		for _, other := range otherwise {
			if *value == "" {
				*value = other
			}
		}
	}
	set(&l.Owner, fmt.Sprintf("go:%d", os.Getpid()))
	set(&l.Server, os.Getenv("LEASEHOLD_SERVER"), "http://127.0.0.1:7420")
	set(&l.Bearer, os.Getenv("LEASEHOLD_TOKEN"))
	if l.TTL == 0 {
		l.TTL = 30 * time.Second
	}
	return l
}

func newToken() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // the system has no random numbers
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}
