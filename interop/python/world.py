"""What one check owns at the broker: fresh names, and clients that end with the check."""

import json
import os
import re
import socket
import struct
import threading
import time

from rocketmq.client import Message, Producer, PullConsumer, PushConsumer, RecvMessage
from rocketmq.exceptions import ffi_check
from rocketmq.ffi import MessageModel, _CConsumeStatus, dll

NAMESRV = os.environ.get("NAMESRV_ADDR", "127.0.0.1:9876")
ID = "it_id"
PROBE = "probe"


class Failed(Exception):
    """The expectation does not hold."""


def require(holds, why):
    if not holds:
        raise Failed(why)


def same(expected, seen, what):
    require(expected == seen, f"{what}: expected {expected}, saw {seen}")


def same_ids(expected, seen, what):
    missing, unknown = sorted(set(expected) - set(seen)), sorted(set(seen) - set(expected))
    require(
        not missing and not unknown,
        f"{what}: {len(missing)} missing {missing[:5]}, {len(unknown)} not expected {unknown[:5]}",
    )


def wait(seconds, what, condition):
    """Polls until the condition holds; a failure says what is missing."""
    deadline = time.monotonic() + seconds
    while not condition():
        require(time.monotonic() < deadline, f"waited {seconds} s for {what() if callable(what) else what}")
        time.sleep(0.02)


def text(topic, id, body=None):
    """A message that carries its own id as a property and again in the body."""
    message = Message(topic)
    message.set_property(ID, id)
    message.set_body("body of " + id if body is None else body)
    return message


class Arrival:
    """A message as it came; the client's own object lives only as long as the callback."""

    def __init__(self, message):
        self.at = time.time()
        self.id = (message.get_property(ID) or b"").decode()
        self.body = message.body.decode()
        self.topic = message.topic
        self.tags = message.tags.decode()
        self.keys = message.keys.decode()
        self.queue = message.queue_id
        self.offset = message.queue_offset
        self.attempt = message.reconsume_times
        self.stored = message.store_size
        self.odd = (message.get_property("odd") or b"").decode()


class Received:
    """Keeps every message it is given, probes apart. `accept` says whether an arrival counts as consumed; a probe does."""

    def __init__(self, accept=lambda arrival: True):
        self.lock = threading.Lock()
        self.accept = accept
        self._arrivals = []
        self._probes = []
        self._broken = []

    def take(self, message):
        arrival = Arrival(message)
        probe = arrival.id.startswith(PROBE)
        with self.lock:
            (self._probes if probe else self._arrivals).append(arrival)
        return probe or self.accept(arrival)

    def callback(self, _consumer, message):
        """For the core itself: to the wrapper a handler can refuse a message only by raising, which prints a trace for each."""
        try:
            accepted = self.take(RecvMessage(message))
        except Exception as thrown:
            self._broken.append(repr(thrown))
            accepted = True
        return (_CConsumeStatus.CONSUME_SUCCESS if accepted else _CConsumeStatus.RECONSUME_LATER).value

    def arrivals(self):
        with self.lock:
            require(not self._broken, f"a message could not be read: {self._broken}")
            return list(self._arrivals)

    def probes(self):
        with self.lock:
            return list(self._probes)

    def ids(self):
        return {arrival.id for arrival in self.arrivals()}

    def repeats(self):
        arrivals = self.arrivals()
        return len(arrivals) - len({arrival.id for arrival in arrivals})

    def wait_ids(self, seconds, wanted, what):
        wanted = set(wanted)
        wait(seconds, lambda: f"{what}: {len(wanted - self.ids())} of {len(wanted)} missing", lambda: wanted <= self.ids())


class World:
    _serial = 0

    def __init__(self, check):
        self.check = check
        self._closers = []

    def name(self, kind):
        """A name nobody used before, fit for topics, groups and instances."""
        World._serial += 1
        moment = int(time.time() * 1000) & 0xFFFFFFF
        return f"itpy_{self.check.replace('-', '_')}_{kind}_{moment:x}_{os.getpid()}_{World._serial}"

    def topic(self, queues=4, name=None):
        topic = name or self.name("t")
        fields = {"topic": topic, "readQueueNums": queues, "writeQueueNums": queues, "perm": 6, "order": "false"}
        fields |= {"defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0}
        remote(broker_address(), 17, fields)
        self.await_route(topic)
        return topic

    def await_route(self, topic):
        def routed():
            try:
                return route(topic)
            except Failed:
                return False

        wait(15, f"a route for {topic}", routed)

    def producer(self, largest=None):
        producer = Producer(self.name("p"), timeout=5000, max_message_size=largest)
        producer.set_namesrv_addr(NAMESRV)
        producer.start()
        self._closers.append(producer.shutdown)
        return producer

    def push(self, group, topic, received, expression="*", orderly=False, broadcasting=False):
        """Starts a push consumer and returns a function that ends it; the end of the check ends it as well."""
        model = MessageModel.BROADCASTING if broadcasting else MessageModel.CLUSTERING
        consumer = PushConsumer(group, orderly=orderly, message_model=model)
        consumer.set_namesrv_addr(NAMESRV)
        consumer.set_instance_name(self.name("consumer"))
        ffi_check(dll.Subscribe(consumer._handle, topic.encode(), expression.encode()))
        consumer._register_callback(received.callback)
        consumer.start()
        running = [consumer]

        def end():
            while running:
                running.pop().shutdown()

        self._closers.append(end)
        return end

    def pull_all(self, topic):
        """All messages of a topic now."""
        consumer = PullConsumer(self.name("g"))
        consumer.set_namesrv_addr(NAMESRV)
        consumer.start()
        received = Received()
        for message in consumer.pull(topic):
            received.take(message)
        consumer.shutdown()
        return received

    def close(self):
        """Ends every client, newest first; the process, and with it what hangs, ends anyway."""
        closing = threading.Thread(target=lambda: [closer() for closer in reversed(self._closers)], daemon=True)
        closing.start()
        closing.join(15)


def send(producer, *messages):
    for message in messages:
        result = producer.send_sync(message)
        same(0, int(result.status), "send status")


def send_all(producer, topic, prefix, count):
    ids = [f"{prefix}-{i}" for i in range(count)]
    send(producer, *(text(topic, id) for id in ids))
    return ids


def route(topic):
    return remote(NAMESRV, 105, {"topic": topic}).decode()


def broker_address():
    """Of the first master; TBW102 is the topic that every broker serves whose topics are made by the first send."""
    found = re.search(r'"brokerAddrs":\{"?0"?:"([^"]+)"', route("TBW102"))
    require(found, f"the name server at {NAMESRV} knows no master broker")
    return found.group(1)


def remote(address, code, fields, body=b""):
    """One request of the remoting protocol. The client has no administration; this makes topics and reads routes."""
    header = {"code": code, "language": "PYTHON", "version": 63, "opaque": 1, "flag": 0}
    header["extFields"] = {name: str(value) for name, value in fields.items()}
    head = json.dumps(header).encode()
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(struct.pack(">II", 4 + len(head) + len(body), len(head)) + head + body)
        stream = connection.makefile("rb")
        length, head_length = struct.unpack(">II", stream.read(8))
        require(head_length >> 24 == 0, "the answer's header is not JSON")
        answer = json.loads(stream.read(head_length))
        content = stream.read(length - 4 - head_length)
    require(answer["code"] == 0, f"request {code} at {address}: code {answer['code']}, {answer.get('remark')}")
    return content
