// The Node library ws: one send() a client and event. Path /, publisher at /publish.
const { WebSocketServer } = require("ws");

const clients = new Set();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false, backlog: 4096 });
server.on("connection", (socket, request) => {
  if (request.url === "/publish") {
    socket.on("message", (data) => {
      for (const client of clients) client.send(data, { binary: false });
    });
    return;
  }
  clients.add(socket);
  socket.on("close", () => clients.delete(socket));
});
