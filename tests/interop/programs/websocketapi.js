// A job with the WebSocket of browsers, which Node.js has too; see common.py.
// `tell` is called with the words of a line.
function hold([number, protocol, seconds, url], tell) {
  const socket = new WebSocket(url, protocol ? [protocol] : []);
  let status = 0;
  socket.onopen = () => {
    status = 101;
    tell("open", number, socket.protocol);
    if (seconds) setTimeout(() => socket.close(1000), seconds * 1000);
  };
  socket.onmessage = (event) => tell("noise", number, String(event.data));
  socket.onclose = ({ code, reason }) => status && tell("end", number, status, code, reason);
  // Node.js 20 tells no close after a refusal.
  socket.onerror = () => status || tell("end", number, 0, "", "");
}

if (typeof module !== "undefined") module.exports = { hold };
