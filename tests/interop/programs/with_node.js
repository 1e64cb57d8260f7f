// Jobs done with Node.js: "ws" or its own WebSocket, as the first argument says; see common.py.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");

const [kind, authority] = process.argv.slice(2);
const modules = path.join(__dirname, "..", "..", "node", "node_modules");
const tell = (...words) => process.stdout.write(words.join("\t") + "\n");

function holdWithWs([number, protocol, seconds, url], tell) {
  const { WebSocket } = require(path.join(modules, "ws"));
  const socket = new WebSocket(url, protocol ? [protocol] : [], { ca: fs.readFileSync(authority) });
  let status = 0;
  socket.on("unexpected-response", (request, response) => {
    tell("end", number, response.statusCode, "", "");
    response.destroy();
  });
  socket.on("error", () => {});
  socket.on("open", () => {
    status = 101;
    tell("open", number, socket.protocol);
    if (seconds) setTimeout(() => socket.close(1000), seconds * 1000);
  });
  socket.on("message", (data) => tell("noise", number, data));
  socket.on("ping", () => tell("noise", number, "ping"));
  socket.on("close", (code, reason) => status && tell("end", number, status, code, reason));
}

const own = kind !== "ws";
const version = own ? process.versions.node : require(path.join(modules, "ws", "package.json")).version;
const hold = own ? require("./websocketapi.js").hold : holdWithWs;
tell("ready", version);
const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => hold(line.split("\t"), tell));
lines.on("close", () => process.exit());
