// socket.io over its websocket transport: one emit() to a room. The publisher is a plain websocket at /publish.
const http = require("http");
const { Server } = require("socket.io");
const { WebSocketServer } = require("ws");

const server = http.createServer();
const io = new Server({ transports: ["websocket"], serveClient: false });
io.attach(server, { destroyUpgrade: false });
io.on("connection", (socket) => socket.join("fan"));
const publisher = new WebSocketServer({ noServer: true });
server.on("upgrade", (request, socket, head) => {
  if (request.url !== "/publish") return;
  publisher.handleUpgrade(request, socket, head, (from) => {
    from.on("message", (data) => io.to("fan").emit("e", data.toString()));
  });
});
server.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
