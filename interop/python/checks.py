"""The checks. Each is given a World and returns what was seen."""

import random
import threading
import time

from world import PROBE, Failed, Received, require, same, same_ids, send, send_all, text, wait

# Long enough for a message that should not come to come.
SETTLE = 1.5
# The client's core rebalances every 10 s and looks for routes every 30 s; neither can be set.
BALANCE = 60


def probe(topic, producer, queues, consumers, tag="P"):
    """Sends probes to all queues. Returns for each consumer the queues of those that it got."""
    attempt = time.monotonic_ns()
    ids = {f"{PROBE}{attempt}-{i}" for i in range(2 * queues)}
    for id in ids:
        message = text(topic, id)
        message.set_tags(tag)
        send(producer, message)
    time.sleep(0.4)
    return [{arrival.queue for arrival in one.probes() if arrival.id in ids} for one in consumers]


def hold(topic, producer, queues, *consumers, tag="P"):
    """
    Until each consumer gets what is in all queues. Where a new group begins depends on when its consumer gets a queue, so checks
    send what they look at only after that.
    """
    wait(BALANCE, f"{len(consumers)} consumers to hold {queues} queues each",
         lambda: all(len(part) == queues for part in probe(topic, producer, queues, consumers, tag)))


def balance(topic, producer, queues, *consumers):
    """Until each consumer gets what is in its own part of the queues, all parts alike."""

    def alike():
        parts = probe(topic, producer, queues, consumers)
        return sum(map(len, parts)) == queues == len(set().union(*parts)) and len({len(part) for part in parts}) == 1

    wait(BALANCE, f"{len(consumers)} consumers to share {queues} queues", alike)


def share(world):
    """Sync, asynchronous and one-way sends; two consumers of one group share the queues."""
    queues, total = 8, 6000
    topic, group = world.topic(queues), world.name("g")
    producer = world.producer()
    first, second = Received(), Received()
    world.push(group, topic, first)
    world.push(group, topic, second)
    balance(topic, producer, queues, first, second)

    answered, failures = threading.Semaphore(0), []
    ids = [f"m-{i}" for i in range(total)]

    def failed(error):
        failures.append(error)
        answered.release()

    for i, id in enumerate(ids):
        message = text(topic, id)
        if i % 3 == 0:
            send(producer, message)
        elif i % 3 == 1:
            producer.send_async(message, lambda result: answered.release(), failed)
        else:
            producer.send_oneway(message)
    for _ in ids[1::3]:
        require(answered.acquire(timeout=15), "an asynchronous send was not answered within 15 s")
    require(not failures, f"asynchronous sends failed: {failures[:3]}")
    expected = set(ids)
    wait(40, lambda: f"{len(expected - first.ids() - second.ids())} of {len(expected)} messages",
         lambda: expected <= first.ids() | second.ids())
    same_ids(expected, first.ids() | second.ids(), "messages of the group")
    offsets, owners = {}, {}
    for owner, one in enumerate((first, second)):
        for arrival in one.arrivals():
            same("body of " + arrival.id, arrival.body, "body")
            owners.setdefault(arrival.queue, set()).add(owner)
        for arrival in one.arrivals() + one.probes():
            offsets.setdefault(arrival.queue, set()).add(arrival.offset)
    same(queues, len(offsets), "queues with messages")
    for queue, seen in offsets.items():
        same(set(range(len(seen))), seen, f"offsets of queue {queue}")
        require(len(owners.get(queue, ())) < 2, f"queue {queue} went to both consumers")
    return f"{total} sent (sync, async, one-way) over 8 queues; two consumers got {len(first.ids())} and {len(second.ids())}"


def broadcast(world):
    topic, group = world.topic(4), world.name("g")
    producer = world.producer()
    everyone = [Received() for _ in range(3)]
    for one in everyone:
        world.push(group, topic, one, broadcasting=True)

    hold(topic, producer, 4, *everyone)
    sent = send_all(producer, topic, "b", 400)
    for one in everyone:
        one.wait_ids(20, sent, "broadcast messages")
    time.sleep(SETTLE)
    for one in everyone:
        got = [arrival.id for arrival in one.arrivals()]
        same(sorted(sent), sorted(got), "broadcast messages of a consumer")
    return "3 consumers got all 400 each, none twice"


def auto_create(world):
    topic = world.name("t")
    sent = send_all(world.producer(), topic, "n", 40)
    received = Received()
    world.push(world.name("g"), topic, received)
    received.wait_ids(30, sent, "messages of a topic nobody created")
    same_ids(sent, received.ids(), "messages")
    return f"40 sent to a topic nobody created, got over queues {sorted({a.queue for a in received.arrivals()})}"


def tags(world):
    topic = world.topic(4)
    some, everything = Received(), Received()
    world.push(world.name("g"), topic, some, "A || C || Aa")
    world.push(world.name("g"), topic, everything)
    producer = world.producer()
    hold(topic, producer, 4, some, everything, tag="A")
    # "Aa" and "BB" have the same Java hash, which is what a broker compares.
    kinds = ["A", "B", "C", "", "Aa", "BB"]
    sent, wanted = [], []
    for i in range(600):
        message, tag = text(topic, f"f-{i}"), kinds[i % len(kinds)]
        if tag:
            message.set_tags(tag)
        send(producer, message)
        sent.append(f"f-{i}")
        if tag in ("A", "C", "Aa"):
            wanted.append(f"f-{i}")
    everything.wait_ids(30, sent, "messages for *")
    some.wait_ids(15, wanted, "messages tagged A, C or Aa")
    time.sleep(SETTLE)
    same_ids(wanted, some.ids(), "A || C || Aa")
    for arrival in everything.arrivals():
        same(kinds[int(arrival.id[2:]) % len(kinds)], arrival.tags, f"tag of {arrival.id}")
    return f"{len(wanted)} of {len(sent)} matched \"A || C || Aa\", no other came"


def restart(world):
    topic, group = world.topic(4), world.name("g")
    producer = world.producer()
    before = Received()
    end = world.push(group, topic, before)
    hold(topic, producer, 4, before)
    first = send_all(producer, topic, "before", 200)
    before.wait_ids(30, first, "messages of the first consumer")
    end()
    meanwhile = send_all(producer, topic, "meanwhile", 100)
    time.sleep(SETTLE)
    after = Received()
    world.push(group, topic, after)
    after.wait_ids(30, meanwhile, "messages sent while nobody consumed")
    last = send_all(producer, topic, "after", 50)
    after.wait_ids(15, last, "messages sent after the restart")
    time.sleep(SETTLE)
    same_ids(first, before.ids(), "messages of the first consumer")
    same_ids(meanwhile + last, after.ids(), "messages of the second consumer")
    return "200 consumed before the restart, 100 sent meanwhile and 50 after it came, none of the 200 again"


def retry(world):
    """
    The client asks for the delay of level 3, 10 s, at the first failure and cannot be told another. Dead letters are not
    looked at: it does not name the topic when it sends a message back, with which RocketMQ 5.5.0 fails to make one.
    """
    # A queue for each message: of those that came with one pull, the wrapper gives up at the first that fails.
    topic, group = world.topic(20), world.name("g")
    producer = world.producer()
    # The consumer looks for the route of this one only every 30 s, and a broker makes it when the consumer first comes.
    world.topic(1, "%RETRY%" + group)
    received = Received(lambda arrival: arrival.id.startswith("good") or arrival.attempt == 1)
    world.push(group, topic, received)
    hold(topic, producer, 20, received)
    for i in range(10):
        for kind in ("good", "second"):
            message = text(topic, f"{kind}-{i}")
            message.set_keys(f"key-{kind}-{i}")
            message.set_tags("T")
            send(producer, message)
    expected = {(f"good-{i}", 0) for i in range(10)} | {(f"second-{i}", attempt) for i in range(10) for attempt in (0, 1)}

    def missing():
        return sorted(expected - {(arrival.id, arrival.attempt) for arrival in received.arrivals()})

    wait(45, lambda: f"deliveries {missing()}", lambda: not missing())
    time.sleep(SETTLE)
    seen = {}
    for arrival in received.arrivals():
        seen.setdefault(arrival.id, []).append(arrival)
        same("body of " + arrival.id, arrival.body, "body")
        same((topic, "key-" + arrival.id, "T"), (arrival.topic, arrival.keys.strip(), arrival.tags), arrival.id)
    same(20, len(seen), "messages seen")
    for id, came in seen.items():
        same([0] if id.startswith("good") else [0, 1], [arrival.attempt for arrival in came], f"attempts at {id}")
        gap = came[-1].at - came[0].at
        require(len(came) == 1 or gap >= 9.9, f"attempt 1 at {id} came after {gap:.1f} s, level 3 is 10 s")
    return "20 sent; 10 accepted at once, 10 at the second attempt, 10 s after the first"


def delay_levels(world):
    topic = world.topic(4)
    received = Received()
    world.push(world.name("g"), topic, received)
    producer = world.producer()
    hold(topic, producer, 4, received)
    due = {}
    for i in range(10):
        for level, delay in enumerate((0, 1, 5)):
            message = text(topic, f"{level}-{i}")
            message.set_tags("T")
            if level:
                message.set_delay_time_level(level)
            due[f"{level}-{i}"] = time.time() + delay
            send(producer, message)
    received.wait_ids(20, due, "delayed messages")
    time.sleep(SETTLE)
    arrivals = received.arrivals()
    same(sorted(due), sorted(arrival.id for arrival in arrivals), "delayed messages")
    off = [arrival.at - due[arrival.id] for arrival in arrivals]
    for arrival, seconds in zip(arrivals, off):
        require(0 <= seconds <= 3, f"{arrival.id} came {seconds * 1000:.0f} ms after its time")
        same((topic, "T"), (arrival.topic, arrival.tags), f"topic and tag of {arrival.id}")
    return f"{len(due)} messages, {min(off) * 1000:.0f} to {max(off) * 1000:.0f} ms after their time"


def orderly(world):
    """Two consumers of one group; numbers of a key come in their order, also when one is refused at first."""
    keys, each = 12, 40
    topic, group = world.topic(4), world.name("g")
    order, refused, lock = {}, set(), threading.Lock()

    def accept(arrival):
        key, number = arrival.id.split("-")
        with lock:
            if number == "10" and arrival.id not in refused:
                refused.add(arrival.id)
                return False
            order.setdefault(key, []).append(int(number))
        return True

    first, second = Received(accept), Received(accept)
    world.push(group, topic, first, orderly=True)
    world.push(group, topic, second, orderly=True)
    producer = world.producer()
    balance(topic, producer, 4, first, second)
    for i in range(each):
        for key in range(keys):
            result = producer.send_orderly(text(topic, f"k{key}-{i}"), key)
            same(0, int(result.status), "send status")
    count = lambda: sum(map(len, order.values()))
    wait(60, lambda: f"{keys * each} messages, got {count()}", lambda: count() >= keys * each)
    time.sleep(SETTLE)
    for key in range(keys):
        same(list(range(each)), order.get(f"k{key}"), f"numbers of the key k{key}")
    same(keys, len(refused), "refused messages")
    return f"{keys * each} messages of {keys} keys in order at two consumers, {keys} of them at the second attempt"


def pull(world):
    topic = world.topic(3)
    producer = world.producer()
    sent = send_all(producer, topic, "p", 300)
    received = world.pull_all(topic)
    same_ids(sent, received.ids(), "pulled messages")
    same(0, received.repeats(), "repeats")
    positions = {}
    for arrival in received.arrivals():
        same(positions.setdefault(arrival.queue, 0), arrival.offset, f"next offset of queue {arrival.queue}")
        positions[arrival.queue] += 1
    same({0, 1, 2}, set(positions), "queues")
    return "300 of 3 queues, each offset once and in order"


def bodies(world):
    """Text bodies only: the wrapper hands them to the core as strings that end at the first zero byte."""
    topic = world.topic(2)
    received = Received()
    world.push(world.name("g"), topic, received)
    largest = (4 << 20) - (16 << 10)
    producer = world.producer(largest=4 << 20)
    hold(topic, producer, 2, received)
    letters = random.Random(42)
    alphabet = "".join(chr(c) for c in range(33, 127))
    sent = {"text": "a text that repeats itself, " * 4000, "unicode": "größe 鍵 🔑 " * 50}
    for size in (1, 4095, 4097, 65536, 1 << 20, largest):
        sent[str(size)] = "".join(letters.choices(alphabet, k=size))
    odd = 'größe 鍵 🔑 {"a":[1]}=;,&'
    for id, body in sent.items():
        message = text(topic, id, body)
        message.set_keys("key-" + id)
        message.set_property("odd", odd)
        send(producer, message)
    received.wait_ids(40, sent, "bodies")
    seen = {arrival.id: arrival for arrival in received.arrivals()}
    for id, body in sent.items():
        if seen[id].body != body:
            raise Failed(f"body {id} came back different: {len(seen[id].body)} of {len(body)} characters")
        same(("key-" + id, odd), (seen[id].keys.strip(), seen[id].odd), f"keys and property of {id}")
    stored = seen["text"].stored
    require(stored < len(sent["text"]) / 2, f"stored {stored} bytes of a text of {len(sent['text'])}: not compressed")
    return f"{len(sent)} bodies of 1 byte to near 4 MiB as sent; a text of {len(sent['text'])} bytes stored in {stored}"
