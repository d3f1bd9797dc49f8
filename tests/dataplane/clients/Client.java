// SPDX-License-Identifier: Apache-2.0
// Both HTTP clients of Java.
import java.io.ByteArrayInputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;

public class Client {
	static String host;
	static final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

	static byte[] body(int size) {
		byte[] made = new byte[size];
		for (int i = 0; i < size; i++)
			made[i] = (byte) i;
		return made;
	}

	static CompletableFuture<Void> check(String method, String name, String path, BodyPublisher data,
					     byte[] want, boolean expect) {
		HttpRequest request = HttpRequest.newBuilder(URI.create("http://" + host + "/" + name + "/" + path))
						.method(method, data).expectContinue(expect).build();
		return client.sendAsync(request, BodyHandlers.ofByteArray()).thenAccept(answer -> {
			String who = answer.headers().firstValue("x-backend").orElse("");
			if (answer.statusCode() != 200 || !who.equals(name) || !Arrays.equals(answer.body(), want))
				throw new RuntimeException(path + " " + answer + " " + answer.body().length);
		});
	}

	static void old(String name, int size) throws Exception {
		HttpURLConnection link = (HttpURLConnection) new URL("http://" + host + "/" + name + "/size/" + size).openConnection();
		if (!Arrays.equals(link.getInputStream().readAllBytes(), body(size)) || !name.equals(link.getHeaderField("x-backend")))
			throw new RuntimeException("HttpURLConnection " + size);
	}

	public static void main(String[] arguments) throws Exception {
		host = arguments[0];
		String[] names = {"a", "b"};
		for (int n = 0; n < 40; n++) {
			check("GET", names[n % 2], "size/" + n, BodyPublishers.noBody(), body(n), false).get();
			old(names[n % 2], n);
		}
		ArrayList<CompletableFuture<Void>> all = new ArrayList<>();
		for (int n = 0; n < 160; n++)
			all.add(check("POST", names[n % 2], "echo", BodyPublishers.ofByteArray(body(n * 99)), body(n * 99), false));
		for (CompletableFuture<Void> one : all)
			one.get();
		for (int size : new int[] {10, 100000, 10000000}) {
			check("POST", "a", "echo", BodyPublishers.ofByteArray(body(size)), body(size), false).get();
			BodyPublisher chunked = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body(size)));
			check("POST", "b", "echo", chunked, body(size), false).get();
			check("GET", "a", "chunked/" + size, BodyPublishers.noBody(), body(size), false).get();
		}
		check("POST", "a", "echo", BodyPublishers.ofByteArray(body(9)), body(9), true).get();
		check("HEAD", "b", "size/50", BodyPublishers.noBody(), body(0), false).get();
		System.out.println("ok");
		System.exit(0);
	}
}
