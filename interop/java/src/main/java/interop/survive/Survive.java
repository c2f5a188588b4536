package interop.survive;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;

/**
 * Works every feature of the broker behind NAMESRV_ADDR and REST, all at once, while somebody else kills and starts it.
 *
 * <p>Reads one word a line: {@code up}, the broker is there, answered with {@code working} once every feature did enough since;
 * {@code killed}, answered with {@code noted}; and {@code judge}, after the last {@code up}.
 */
public final class Survive {
    private static final int WORK_SECONDS = 60;
    private static final int SETTLE_SECONDS = 120;
    private static final int SLOW_SECONDS = 5;
    private static final int POLL_MILLIS = 20;
    private static final int SETTLE_POLL_MILLIS = 500;

    private final Clients clients = new Clients();
    private final List<Feature> features = List.of(
        new Orderly(clients), Delayed.levels(clients), Delayed.timers(clients), new Recalled(clients), new Transactions(clients),
        new DeadLetters(clients), new Popped(clients), new Offsets(clients), new Filtered(clients), new Requests(clients));
    private int kills;

    private Survive() {
    }

    public static void main(String[] args) {
        try {
            obey(new Survive());
        } catch (Exception failed) {
            // The clients' threads would keep the program alive.
            System.out.println("FAIL judge: " + failed);
            failed.printStackTrace();
        }
        System.exit(2);
    }

    private static void obey(Survive survive) throws Exception {
        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
        for (String order = orders.readLine(); order != null; order = orders.readLine()) {
            switch (order) {
                case "up" -> survive.up();
                case "killed" -> survive.killed();
                case "judge" -> System.exit(survive.judge() ? 0 : 1);
                default -> throw new IOException("no such order: " + order);
            }
        }
    }

    private void up() throws Exception {
        features.forEach(feature -> feature.tallies().forEach(Tally::begin));
        if (kills == 0) {
            clients.start();
        }
        for (Feature feature : features) {
            if (kills == 0) {
                feature.start();
            } else {
                feature.restarted();
            }
        }
        awaitWork();
        System.out.println("working");
    }

    /** Until every feature did enough; those that needed long are named. */
    private void awaitWork() throws InterruptedException {
        long start = System.nanoTime();
        Set<String> slow = new TreeSet<>();
        boolean enough = false;
        while (!enough && System.nanoTime() < start + WORK_SECONDS * 1_000_000_000L) {
            Thread.sleep(POLL_MILLIS);
            enough = true;
            for (Feature feature : features) {
                for (Tally tally : feature.tallies()) {
                    if (!tally.enough()) {
                        enough = false;
                        if (System.nanoTime() > start + SLOW_SECONDS * 1_000_000_000L) {
                            slow.add(feature.name() + ", " + tally.what());
                        }
                    }
                }
            }
        }
        if (!slow.isEmpty()) {
            System.out.printf("note after kill %d: %.1f s until enough was done; longer than %d s took %s%n", kills,
                (System.nanoTime() - start) / 1e9, SLOW_SECONDS, slow);
        }
    }

    private void killed() {
        for (Feature feature : features) {
            endTallies(feature);
            feature.killed();
        }
        kills++;
        System.out.println("noted");
    }

    private void endTallies(Feature feature) {
        for (Tally tally : feature.tallies()) {
            tally.end();
            feature.require(tally.enough(), "too little was done after kill %d: %s", kills, tally);
        }
    }

    private boolean judge() throws Exception {
        for (Feature feature : features) {
            endTallies(feature);
            feature.rest();
        }
        long deadline = System.nanoTime() + SETTLE_SECONDS * 1_000_000_000L;
        int passed = 0;
        for (Feature feature : features) {
            settle(feature, deadline);
            passed += verdict(feature) ? 1 : 0;
        }
        System.out.printf("interop kill: %d passed, %d failed%n", passed, features.size() - passed);
        return passed == features.size();
    }

    /** Whatever is missing when the time is over is named by the verdict. */
    private static void settle(Feature feature, long deadline) throws InterruptedException {
        do {
            try {
                if (feature.settled()) {
                    return;
                }
            } catch (InterruptedException stopped) {
                throw stopped;
            } catch (Exception notYet) {
                // Asked again: a topic may still be on its way.
            }
            Thread.sleep(SETTLE_POLL_MILLIS);
        } while (System.nanoTime() < deadline);
        feature.require(false, "not settled %d s after the last kill", SETTLE_SECONDS);
    }

    private static boolean verdict(Feature feature) {
        String seen = "";
        try {
            seen = feature.judge();
        } catch (Exception failed) {
            feature.require(false, "%s", failed);
        }
        boolean passed = feature.wrong().isEmpty();
        String line = passed ? seen : feature.wrong().size() + " wrong, " + Feature.few(feature.wrong()) + "; " + feature.counts();
        System.out.println((passed ? "PASS " : "FAIL ") + feature.name() + ": " + line.replaceAll("\\s+", " "));
        return passed;
    }
}
