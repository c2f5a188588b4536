package interop;

import static interop.Check.require;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * The REST API of a Sluice at REST, for the checks of what no other broker has.
 *
 * <p>PLUGIN is the file of the ready-made component json-filter; the others are beside it.
 */
final class Rest {
    /** Null when the broker is no Sluice. */
    static final String BASE = System.getenv("REST");
    private static final HttpClient HTTP = HttpClient.newHttpClient();

    private Rest() {
    }

    static byte[] component(String plugin) throws IOException {
        String file = System.getenv("PLUGIN");
        require(file != null, "PLUGIN names no file with json-filter, and so none with %s", plugin);
        return Files.readAllBytes(Path.of(file).resolveSibling(plugin + ".wasm"));
    }

    /** Uploads a ready-made plugin under its own name, unless it is there. */
    static synchronized void upload(String plugin) throws IOException, InterruptedException {
        HttpRequest known = request("/plugins/" + plugin).GET().build();
        if (HTTP.send(known, HttpResponse.BodyHandlers.discarding()).statusCode() != 200) {
            upload(plugin, component(plugin));
        }
    }

    static void upload(String name, byte[] component) throws IOException, InterruptedException {
        answer(request("/plugins/" + name).PUT(HttpRequest.BodyPublishers.ofByteArray(component)).build());
    }

    static void put(String path, String json) throws IOException, InterruptedException {
        answer(request(path).header("Content-Type", "application/json").PUT(HttpRequest.BodyPublishers.ofString(json)).build());
    }

    static void post(String path) throws IOException, InterruptedException {
        answer(request(path).POST(HttpRequest.BodyPublishers.noBody()).build());
    }

    static void delete(String path) throws IOException, InterruptedException {
        answer(request(path).DELETE().build());
    }

    static String get(String path) throws IOException, InterruptedException {
        return answer(request(path).GET().build());
    }

    private static String answer(HttpRequest request) throws IOException, InterruptedException {
        HttpResponse<String> response = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
        require(response.statusCode() / 100 == 2, "%s answered %d: %s", request.uri(), response.statusCode(), response.body());
        return response.body();
    }

    private static HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(URI.create(BASE + "/api/v1" + path));
    }
}
