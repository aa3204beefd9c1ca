// Send a job to darkroom, follow it to its end, save the picture.
//
// usage: job PROMPT SEED ID FILE [stream|live]      REDIS_URL: where Redis is
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"
)

const p = "{darkroom}"

type job struct {
	ID     string            `msgpack:"id"`
	Prompt string            `msgpack:"prompt"`
	Seed   uint64            `msgpack:"seed"`
	Steps  int               `msgpack:"steps"`
	Meta   map[string]string `msgpack:"meta"`
}

type event struct {
	Event  string
	Images []struct{ Key string }
}

// show prints an event as it came and says whether it ends the job.
func show(text string) (e event, last bool, err error) {
	fmt.Println(text)
	err = json.Unmarshal([]byte(text), &e)
	switch e.Event {
	case "succeeded", "failed", "canceled", "expired":
		last = true
	}
	return e, last, err
}

// stream follows the job's events from its first one on; read late or again, it tells the
// same.
func stream(ctx context.Context, r *redis.Client, id string) (event, error) {
	from := "0"
	for {
		streams, err := r.XRead(ctx, &redis.XReadArgs{
			Streams: []string{p + ":events:" + id, from}, Block: time.Second}).Result()
		if errors.Is(err, redis.Nil) {
			continue // nothing yet
		}
		if err != nil {
			return event{}, err
		}
		for _, entry := range streams[0].Messages {
			from = entry.ID
			if e, last, err := show(entry.Values["event"].(string)); last || err != nil {
				return e, err
			}
		}
	}
}

// live follows the same events as they are published.
func live(messages <-chan *redis.Message) (event, error) {
	for m := range messages {
		if e, last, err := show(m.Payload); last || err != nil {
			return e, err
		}
	}
	return event{}, errors.New("the subscription ended")
}

func run(ctx context.Context, prompt, seed, id, file, how string) error {
	url := os.Getenv("REDIS_URL")
	if url == "" {
		url = "redis://127.0.0.1:6379"
	}
	options, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	r := redis.NewClient(options)
	defer r.Close()

	var messages <-chan *redis.Message
	if how == "live" {
		listener := r.Subscribe(ctx, p+":progress:"+id)
		defer listener.Close()
		if _, err := listener.Receive(ctx); err != nil { // confirmed: now send the job
			return err
		}
		messages = listener.Channel()
	}

	number, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	packed, err := msgpack.Marshal(job{ID: id, Prompt: prompt, Seed: number, Steps: 20,
		Meta: map[string]string{"client": "go-redis"}})
	if err != nil {
		return err
	}
	if err := r.XAdd(ctx, &redis.XAddArgs{Stream: p + ":q:normal",
		Values: map[string]interface{}{"job": packed}}).Err(); err != nil {
		return err
	}

	var end event
	if how == "live" {
		end, err = live(messages)
	} else {
		end, err = stream(ctx, r, id)
	}
	if err != nil {
		return err
	}
	if end.Event != "succeeded" {
		return fmt.Errorf("job %s: %s", id, end.Event)
	}
	webp, err := r.Get(ctx, end.Images[0].Key).Bytes()
	if err != nil {
		return err
	}
	return os.WriteFile(file, webp, 0o666)
}

func main() {
	if len(os.Args) < 5 {
		log.Fatal("usage: job PROMPT SEED ID FILE [stream|live]")
	}
	how := "stream"
	if len(os.Args) > 5 {
		how = os.Args[5]
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3], os.Args[4], how); err != nil {
		log.Fatal(err)
	}
}
