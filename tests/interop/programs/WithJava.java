// Jobs done with java.net.http.WebSocket; see common.py.

import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.net.http.WebSocketHandshakeException;
import java.nio.ByteBuffer;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class WithJava {
    static final ScheduledExecutorService timer = Executors.newScheduledThreadPool(1, task -> {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    });

    static synchronized void tell(Object... words) {
        StringBuilder line = new StringBuilder();
        for (Object word : words) line.append(line.length() == 0 ? "" : "\t").append(word);
        System.out.println(line);
    }

    record Holding(String number) implements WebSocket.Listener {
        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            tell("noise", number, data);
            return null;
        }

        public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer data, boolean last) {
            tell("noise", number, "binary");
            return null;
        }

        public CompletionStage<?> onPing(WebSocket socket, ByteBuffer data) {
            tell("noise", number, "ping");
            return null;
        }

        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            tell("end", number, 101, code, reason);
            return null;
        }

        public void onError(WebSocket socket, Throwable fault) {
            tell("end", number, 101, "", "");
        }
    }

    static void hold(HttpClient client, String[] job) {
        WebSocket.Builder builder = client.newWebSocketBuilder();
        if (!job[1].isEmpty()) builder.subprotocols(job[1]);
        builder.buildAsync(URI.create(job[3]), new Holding(job[0])).whenComplete((socket, fault) -> {
            if (socket != null) {
                tell("open", job[0], socket.getSubprotocol());
                if (!job[2].isEmpty()) {
                    timer.schedule(() -> socket.sendClose(1000, ""),
                        (long) (1000 * Double.parseDouble(job[2])), TimeUnit.MILLISECONDS);
                }
                return;
            }
            Throwable cause = fault.getCause() == null ? fault : fault.getCause();
            int status = cause instanceof WebSocketHandshakeException refused
                ? refused.getResponse().statusCode() : 0;
            tell("end", job[0], status, "", "");
        });
    }

    public static void main(String[] arguments) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (FileInputStream file = new FileInputStream(arguments[0])) {
            trusted.setCertificateEntry("authority",
                CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory managers =
            TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        HttpClient client = HttpClient.newBuilder().sslContext(context).build();
        tell("ready", System.getProperty("java.version"));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            hold(client, line.split("\t", -1));
        }
        System.exit(0);
    }
}
