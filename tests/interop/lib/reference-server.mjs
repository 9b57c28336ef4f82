// The server that y-websocket 1.5 bundles, with a file per document behind it, started the way Syncline is. It exists so
// that a failing test can be judged: what fails here too is the test's or Yjs's own doing.
//
//   node lib/reference-server.mjs serve --data DIR --http ADDR [--webtransport ADDR]

import { createRequire } from 'node:module'
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createHash } from 'node:crypto'
import http from 'node:http'

const require = createRequire(import.meta.url)
const Y = require('yjs')
const { WebSocketServer } = require('ws')
const { setupWSConnection, setPersistence } = require('yws1/bin/utils')

const option = name => {
  const at = process.argv.indexOf(name)
  return at < 0 ? undefined : process.argv[at + 1]
}
const data = option('--data')
const [host, port] = option('--http').split(':')

// Rows of "4 bytes length, update", appended before the update is relayed, like a journal.
setPersistence({
  provider: null,
  bindState: (name, doc) => {
    const file = join(data, createHash('sha256').update(name).digest('hex'))
    if (existsSync(file)) {
      const bytes = readFileSync(file)
      for (let at = 0; at + 4 <= bytes.length;) {
        const end = at + 4 + bytes.readUInt32LE(at)
        if (end > bytes.length) break
        Y.applyUpdate(doc, bytes.subarray(at + 4, end))
        at = end
      }
    }
    doc.on('update', update => {
      const row = Buffer.alloc(4 + update.length)
      row.writeUInt32LE(update.length)
      row.set(update, 4)
      appendFileSync(file, row)
    })
  },
  writeState: async () => {}
})

const server = http.createServer((request, response) => response.end('ok'))
const sockets = new WebSocketServer({ noServer: true })
sockets.on('connection', (socket, request) => {
  socket.on('error', () => {})
  setupWSConnection(socket, request)
})
server.on('upgrade', (request, socket, head) =>
  sockets.handleUpgrade(request, socket, head, ws => sockets.emit('connection', ws, request)))
process.on('uncaughtException', error => console.error(error))
process.on('SIGTERM', () => process.exit(0))
server.listen(Number(port), host, () =>
  console.log(`ready http=${host}:${server.address().port} webtransport=none store=reference`))
