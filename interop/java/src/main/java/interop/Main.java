package interop;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Stream;

/** Runs the checks against the name server in NAMESRV_ADDR and prints one line for each. */
public final class Main {
    private static final String USAGE = "usage: [--list] [--jobs N] [check ...]   (NAMESRV_ADDR, default 127.0.0.1:9876)";

    private static final List<Check> ROCKETMQ = List.of(
        new Check("share-20000", 90, Sharing::mixedSends),
        new Check("broadcast", 30, Sharing::broadcasting),
        new Check("auto-create", 30, Sharing::autoCreatedTopic),
        new Check("tags", 30, Filtering::tags),
        new Check("sql92", 60, Filtering::sql92),
        new Check("restart", 60, Restart::resumes),
        new Check("restart-midway", 60, Restart::midway),
        new Check("retry-dlq", 60, Retrying::untilDeadLetter),
        new Check("dlq-again", 60, Retrying::deadLettersAgain),
        new Check("transaction", 120, Transactions::decisions),
        new Check("transaction-immunity", 120, Transactions::immunity),
        new Check("transaction-other-producer", 120, Transactions::otherProducer),
        new Check("delay-levels", 40, Delays::levels),
        new Check("timer", 40, Delays::timer),
        new Check("recall", 40, Delays::recall),
        new Check("orderly", 40, Ordering::orderly),
        new Check("orderly-hand-over", 150, Ordering::retriesAndHandOver),
        new Check("pop", 120, Popping::sharedFailedAndLeft),
        new Check("query", 40, Lookup::byKeyAndId),
        new Check("offsets", 30, Lookup::offsets),
        new Check("offset-boundaries", 30, Lookup::boundaries),
        new Check("members", 60, Members::seenByAdministrators),
        new Check("trace", 90, Tracing::sentAndConsumed),
        new Check("batch-refused", 40, Batches::refused),
        new Check("lite-pull", 40, Pulling::litePull),
        new Check("pull", 40, Pulling::byOffset),
        new Check("body-compressed", 40, Bodies::compressed),
        new Check("body-sizes", 60, Bodies::sizes),
        new Check("body-too-large", 40, Bodies::tooLarge),
        new Check("properties", 30, Bodies::properties),
        new Check("request-reply", 30, RequestReply::roundTrip));
    private static final List<Check> PLUGINS =
        List.of(new Check("ingress", 60, Places::ingress), new Check("group-filter", 90, Places::filter),
            new Check("upgrade", 120, Upgrade::underLoad));
    /** What a Sluice alone can do is checked when its REST address is known, and is not there to be counted when it is not. */
    private static final List<Check> CHECKS =
        Stream.concat(ROCKETMQ.stream(), (Rest.BASE == null ? List.<Check>of() : PLUGINS).stream()).toList();

    private Main() {
    }

    public static void main(String[] args) throws Exception {
        List<String> names = new ArrayList<>(Arrays.asList(args));
        if (names.remove("--list")) {
            CHECKS.forEach(check -> System.out.println(check.name()));
            return;
        }
        int jobs = 4;
        int at = names.indexOf("--jobs");
        if (at >= 0) {
            if (at + 1 >= names.size() || !names.get(at + 1).matches("[1-9][0-9]?")) {
                usage("--jobs needs a number from 1 to 99");
            }
            jobs = Integer.parseInt(names.remove(at + 1));
            names.remove(at);
        }
        for (String name : names) {
            if (CHECKS.stream().noneMatch(check -> check.name().equals(name))) {
                usage("no check is called " + name);
            }
        }
        List<Check> chosen = CHECKS.stream().filter(c -> names.isEmpty() || names.contains(c.name())).toList();
        if (!reachable(World.NAMESRV)) {
            System.out.printf("no name server answers at %s (NAMESRV_ADDR)%ninterop java: 0 passed, %d failed%n", World.NAMESRV, chosen.size());
            System.exit(1);
        }
        System.exit(runAll(chosen, jobs) ? 0 : 1);
    }

    private static boolean reachable(String address) {
        int colon = address.lastIndexOf(':');
        try (Socket socket = new Socket()) {
            socket.connect(new InetSocketAddress(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1))), 3_000);
            return true;
        } catch (IOException | RuntimeException unreachable) {
            return false;
        }
    }

    private static void usage(String why) {
        System.err.println(why);
        System.err.println(USAGE);
        System.exit(2);
    }

    private static boolean runAll(List<Check> chosen, int jobs) throws InterruptedException, ExecutionException {
        ExecutorService lanes = Executors.newFixedThreadPool(jobs);
        ExecutorService bodies = Executors.newCachedThreadPool();
        List<Future<Boolean>> results = new ArrayList<>();
        for (Check check : chosen) {
            results.add(lanes.submit(() -> runOne(check, bodies)));
        }
        int passed = 0;
        for (Future<Boolean> result : results) {
            passed += result.get() ? 1 : 0;
        }
        int failed = chosen.size() - passed;
        System.out.printf("interop java: %d passed, %d failed%n", passed, failed);
        return failed == 0;
    }

    private static boolean runOne(Check check, ExecutorService bodies) {
        long start = System.nanoTime();
        String failure = null;
        String detail = null;
        World world = new World(check.name());
        Future<String> body = bodies.submit(() -> check.body().run(world));
        try {
            detail = body.get(check.seconds(), TimeUnit.SECONDS);
        } catch (TimeoutException timeout) {
            body.cancel(true);
            failure = "not done within " + check.seconds() + " s";
        } catch (ExecutionException thrown) {
            failure = explain(thrown.getCause());
        } catch (InterruptedException stopped) {
            body.cancel(true);
            failure = "interrupted";
        }
        world.close();
        double seconds = (System.nanoTime() - start) / 1e9;
        String line = failure == null ? "PASS " + check.name() + ": " + detail : "FAIL " + check.name() + ": " + failure;
        System.out.printf("%s (%.1f s)%n", line.replaceAll("\\s+", " "), seconds);
        return failure == null;
    }

    private static String explain(Throwable thrown) {
        if (thrown instanceof Check.Failed) {
            return thrown.getMessage();
        }
        String where = Arrays.stream(thrown.getStackTrace())
            .filter(frame -> frame.getClassName().startsWith("interop."))
            .findFirst().map(frame -> " at " + frame).orElse("");
        return thrown + where;
    }
}
