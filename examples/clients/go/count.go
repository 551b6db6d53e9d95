// Several of these, in any language, count in one file: `count FILE TIMES`. Without the lock they would overwrite each
// other. `count hold KEY TTL` holds a lock until it is lost, and says so.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"example.org/leasehold/leasehold"
)

func main() {
	var err error
	if os.Args[1] == "hold" {
		err = hold(os.Args[2], os.Args[3])
	} else {
		err = count(os.Args[1], os.Args[2])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func hold(key, seconds string) error {
	ttl, err := time.ParseDuration(seconds + "s")
	if err != nil {
		return err
	}
	err = leasehold.With(context.Background(), leasehold.Lock{Key: key, TTL: ttl, Wait: 5 * time.Second},
		func(ctx context.Context, held *leasehold.Held) error {
			fmt.Println("held")
			<-ctx.Done()
			return nil
		})
	if !errors.Is(err, leasehold.ErrLost) {
		return fmt.Errorf("not lost: %v", err)
	}
	fmt.Println("lost")
	return nil
}

func count(path, text string) error {
	times, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	lock := leasehold.Lock{Key: "count:" + path, TTL: 10 * time.Second, Wait: time.Minute}
	for ; times > 0; times-- {
		err := leasehold.With(context.Background(), lock, func(_ context.Context, held *leasehold.Held) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			var count, seen uint64
			if _, err := fmt.Sscan(string(text), &count, &seen); err != nil {
				return err
			}
			if held.FencingToken <= seen {
				return errors.New("another had the lock after us")
			}
			time.Sleep(time.Millisecond)
			return os.WriteFile(path, []byte(fmt.Sprintf("%d %d\n", count+1, held.FencingToken)), 0o600)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
