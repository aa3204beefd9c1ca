// No-op tasks through asynq. usage: noop SOCKET enqueue|work|latency N; JSON on stdout.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math/rand"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

const payload = `{"prompt":"a large red circle on a blue background","negative_prompt":"","width":512,"height":512,"steps":20,"cfg_scale":7.5,"seed":1}`

var (
	handled  = make(chan moment, 1)
	recorded = make(chan time.Time, 1)
	waiting  atomic.Value // the id whose ending is to be recorded
)

type moment struct{ start, end time.Time }

// doneHook sees the reply to the script that ends a task: asynq has no call-back for that.
type doneHook struct{}

func (doneHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return next(ctx, network, addr)
	}
}

func (doneHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (doneHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		id, _ := waiting.Load().(string)
		ends := id != "" && strings.HasPrefix(cmd.Name(), "eval") && names(cmd, id)
		err := next(ctx, cmd)
		if ends && err == nil {
			waiting.Store("")
			recorded <- time.Now()
		}
		return err
	}
}

func names(cmd redis.Cmder, id string) bool {
	for _, arg := range cmd.Args() {
		if text, ok := arg.(string); ok && strings.HasSuffix(text, ":t:"+id) {
			return true
		}
	}
	return false
}

func handle(ctx context.Context, task *asynq.Task) error {
	m := moment{start: time.Now()}
	id, _ := asynq.GetTaskID(ctx)
	waiting.Store(id)
	m.end = time.Now()
	handled <- m
	return nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: noop SOCKET enqueue|work|latency N")
	}
	options := &redis.Options{Network: "unix", Addr: os.Args[1]}
	mode := os.Args[2]
	n, err := strconv.Atoi(os.Args[3])
	check(err)
	client := asynq.NewClientFromRedisClient(redis.NewClient(options))
	enqueue := func() {
		_, err := client.Enqueue(asynq.NewTask("noop", []byte(payload)))
		check(err)
	}

	begin := time.Now()
	if mode == "enqueue" {
		for i := 0; i < n; i++ {
			enqueue()
		}
		fmt.Printf("{\"seconds\": %g}\n", time.Since(begin).Seconds())
		return
	}

	connection := redis.NewClient(options)
	connection.AddHook(doneHook{})
	server := asynq.NewServerFromRedisClient(connection,
		asynq.Config{Concurrency: 1, LogLevel: asynq.WarnLevel})
	check(server.Start(asynq.HandlerFunc(handle)))
	if mode == "latency" { // the first job makes the connections
		enqueue()
		<-handled
		<-recorded
	}

	var starts, ends []float64
	for i := 0; i < n; i++ {
		sent := time.Now()
		if mode == "latency" {
			time.Sleep(time.Duration(2000+rand.Intn(4000)) * time.Microsecond)
			sent = time.Now()
			enqueue()
		}
		m := <-handled
		if i == 0 {
			begin = m.start
		}
		starts = append(starts, micros(m.start.Sub(sent)))
		ends = append(ends, micros((<-recorded).Sub(m.end)))
	}
	out := map[string]interface{}{"seconds": time.Since(begin).Seconds(), "end": ends}
	if mode == "latency" {
		out["start"] = starts
	}
	check(json.NewEncoder(os.Stdout).Encode(out))
}
