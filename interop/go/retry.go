package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

const maxReconsume = 2

type attempt struct {
	reconsumeTimes int32
	topic, keys    string
	at             time.Time
}

// attempts is a listener that refuses some messages and notes every try.
type attempts struct {
	mutex sync.Mutex
	byID  map[string][]attempt
}

func (a *attempts) listen(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	message := messages[0]
	id := message.GetProperty(idProperty)
	a.byID[id] = append(a.byID[id], attempt{message.ReconsumeTimes, message.Topic, message.GetKeys(), time.Now()})
	if delay, ok := primitive.GetConcurrentlyCtx(ctx); ok {
		delay.DelayLevelWhenNextConsume = 1
	}
	if strings.HasPrefix(id, "good") || strings.HasPrefix(id, "second") && message.ReconsumeTimes == 1 {
		return consumer.ConsumeSuccess, nil
	}
	return consumer.ConsumeRetryLater, nil
}

func (a *attempts) at(id string) []attempt {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return append([]attempt(nil), a.byID[id]...)
}

func retryUntilDeadLetter(w *world) (string, error) {
	topic, err := w.topic(4)
	if err != nil {
		return "", err
	}
	group := w.name("g")
	tries := &attempts{byID: map[string][]attempt{}}
	// The first consumer makes the broker create the retry topic. The client looks for its route at the start and then
	// every 30 s only, so the second one begins at once where the first would have waited.
	end, err := w.push(group, topic, "*", tries.listen, consumer.WithMaxReconsumeTimes(maxReconsume))
	if err != nil {
		return "", err
	}
	if err := w.awaitRoute("%RETRY%"+group, 1); err != nil {
		return "", err
	}
	end()
	if _, err := w.push(group, topic, "*", tries.listen, consumer.WithMaxReconsumeTimes(maxReconsume)); err != nil {
		return "", err
	}
	bad, err := sendForRetry(w, topic)
	if err != nil {
		return "", err
	}
	err = await(60*time.Second, func() string {
		for id := range bad {
			if seen := len(tries.at(id)); seen <= maxReconsume {
				return fmt.Sprintf("attempt %d at %s", seen, id)
			}
		}
		return ""
	})
	if err != nil {
		return "", err
	}
	dead := newReceived()
	if err := w.awaitRoute("%DLQ%"+group, 1); err != nil {
		return "", err
	}
	if _, err := w.push(w.name("g"), "%DLQ%"+group, "*", dead.listen); err != nil {
		return "", err
	}
	if err := dead.awaitIDs(30*time.Second, bad, "dead letters"); err != nil {
		return "", err
	}
	time.Sleep(settle)
	if err := requireAttempts(tries, topic); err != nil {
		return "", err
	}
	if err := requireDead(dead, bad, topic); err != nil {
		return "", err
	}
	return fmt.Sprintf("30 sent; 10 accepted at once, 10 at the second attempt, 10 after attempts 0,1,2 in %%DLQ%% (%d)", dead.distinct()), nil
}

func sendForRetry(w *world, topic string) (map[string]bool, error) {
	sender, err := w.producer()
	if err != nil {
		return nil, err
	}
	bad := map[string]bool{}
	for i := 0; i < 10; i++ {
		for _, kind := range []string{"good", "second", "bad"} {
			id := fmt.Sprintf("%s-%d", kind, i)
			if err := sendOne(sender, text(topic, id).WithKeys([]string{"key-" + id}).WithTag("T")); err != nil {
				return nil, err
			}
		}
		bad[fmt.Sprintf("bad-%d", i)] = true
	}
	return bad, nil
}

func requireAttempts(tries *attempts, topic string) error {
	for i := 0; i < 10; i++ {
		for kind, expected := range map[string]int{"good": 1, "second": 2, "bad": maxReconsume + 1} {
			id := fmt.Sprintf("%s-%d", kind, i)
			seen := tries.at(id)
			if len(seen) != expected {
				return fmt.Errorf("%d attempts at %s, expected %d", len(seen), id, expected)
			}
			for n, one := range seen {
				if one.reconsumeTimes != int32(n) || one.topic != topic || one.keys != "key-"+id {
					return fmt.Errorf("attempt %d at %s shows reconsumeTimes %d, topic %s, keys %s", n, id, one.reconsumeTimes, one.topic, one.keys)
				}
				if n > 0 && one.at.Sub(seen[n-1].at) < 950*time.Millisecond {
					return fmt.Errorf("attempt %d at %s came after %s, level 1 is 1 s", n, id, one.at.Sub(seen[n-1].at))
				}
			}
		}
	}
	return nil
}

func requireDead(dead *received, bad map[string]bool, topic string) error {
	if err := sameIDs(bad, dead.ids(), "dead letters"); err != nil {
		return err
	}
	if dead.repeats() > 0 {
		return fmt.Errorf("%d dead letters are there twice", dead.repeats())
	}
	for _, one := range dead.snapshot() {
		if one.message.GetKeys() != "key-"+one.id || one.message.GetTags() != "T" {
			return fmt.Errorf("dead %s has keys %q and tag %q", one.id, one.message.GetKeys(), one.message.GetTags())
		}
		if one.message.GetProperty(primitive.PropertyOriginMessageId) == "" {
			return fmt.Errorf("dead %s has no ORIGIN_MESSAGE_ID", one.id)
		}
		if origin := one.message.GetProperty(primitive.PropertyRetryTopic); origin != topic {
			return fmt.Errorf("dead %s has the RETRY_TOPIC %q, expected %s", one.id, origin, topic)
		}
	}
	return nil
}
