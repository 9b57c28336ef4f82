// The stock clients, unmodified from npm, against the y-websocket dialect: what they promise their users holds.

import { after, before, describe, test } from 'node:test'
import assert from 'node:assert/strict'
import WebSocket from 'ws'
import * as Y13 from 'yjs'
import * as Y14 from '@y/y'
import { WebsocketProvider as Provider1 } from 'yws1'
import { WebsocketProvider as Provider2 } from 'yws2'
import { WebsocketProvider as Provider3 } from 'yws3'
import { WebsocketProvider as Provider4 } from '@y/websocket'
import { REFERENCE, Server, stopAll } from './lib/server.mjs'
import { deadline, until } from './lib/until.mjs'

// Every provider listens for the end of the process.
process.setMaxListeners(0)
after(stopAll)

// What the tests do with a document, in the words of either Yjs.
const yjs13 = {
  doc: () => new Y13.Doc(),
  type: (doc, text) => doc.getText('text').insert(doc.getText('text').length, text),
  cut: (doc, at, length) => doc.getText('text').delete(at, length),
  set: (doc, key, value) => doc.getMap('map').set(key, value),
  unset: (doc, key) => doc.getMap('map').delete(key),
  push: (doc, ...values) => doc.getArray('array').push(values),
  element: (doc, name, attributes, text) => {
    const element = new Y13.XmlElement(name)
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
    element.insert(0, [new Y13.XmlText(text)])
    doc.getXmlFragment('xml').push([element])
  },
  read: doc => ({
    text: doc.getText('text').toString(),
    map: doc.getMap('map').toJSON(),
    array: doc.getArray('array').toJSON(),
    xml: doc.getXmlFragment('xml').toString()
  }),
  vector: doc => Object.fromEntries(Y13.decodeStateVector(Y13.encodeStateVector(doc)))
}
const yjs14 = {
  doc: () => new Y14.Doc(),
  type: (doc, text) => doc.get('text').insert(doc.get('text').length, text),
  cut: (doc, at, length) => doc.get('text').delete(at, length),
  set: (doc, key, value) => doc.get('map').setAttr(key, value),
  unset: (doc, key) => doc.get('map').deleteAttr(key),
  push: (doc, ...values) => doc.get('array').push(values),
  element: (doc, name, attributes, text) => {
    const element = new Y14.Type(name)
    for (const [key, value] of Object.entries(attributes)) element.setAttr(key, value)
    element.insert(0, text)
    doc.get('xml').push([element])
  },
  read: doc => ({
    text: doc.get('text').toString(),
    map: doc.get('map').getAttrs(),
    array: doc.get('array').toArray(),
    // Yjs 14 shows the text nodes of Yjs 13 as nameless elements.
    xml: doc.get('xml').toString().replace(/<\/?>/g, '')
  }),
  vector: doc => Object.fromEntries(Y14.decodeStateVector(Y14.encodeStateVector(doc)))
}
const VERSIONS = [
  { name: 'y-websocket 1.5', Provider: Provider1, yjs: yjs13 },
  { name: 'y-websocket 2.1', Provider: Provider2, yjs: yjs13 },
  { name: 'y-websocket 3.1', Provider: Provider3, yjs: yjs13 },
  { name: '@y/websocket 4', Provider: Provider4, yjs: yjs14 }
]

/** One stock client with a record of what it told its application. */
class Client {
  constructor (version, url, name, { doc = version.yjs.doc(), ...options } = {}) {
    this.version = version
    this.doc = doc
    this.statuses = []
    this.closes = []
    this.syncs = []
    // Clients of one process would meet on the BroadcastChannel and hide what the server does.
    this.provider = new version.Provider(url, name, doc, { WebSocketPolyfill: WebSocket, disableBc: true, connect: false, ...options })
    this.provider.on('status', ({ status }) => this.statuses.push(status))
    this.provider.on('connection-close', event => this.closes.push(event?.code ?? 'own'))
    this.provider.on('sync', state => this.syncs.push(state))
    this.provider.connect()
  }

  get read () {
    return this.version.yjs.read(this.doc)
  }

  do (verb, ...rest) {
    this.version.yjs[verb](this.doc, ...rest)
  }

  get id () {
    return this.doc.clientID
  }

  sees (other) {
    return this.provider.awareness.getStates().get(other.id)
  }

  get told () {
    return `${this.version.name}: statuses ${this.statuses} closes ${this.closes} syncs ${this.syncs}\n${JSON.stringify(this.read)}`
  }

  async synced (within = 5000) {
    await until(() => this.provider.synced, { what: 'synced', within, detail: () => this.told })
    return this
  }

  destroy () {
    this.provider.destroy()
    this.provider.awareness.destroy()
    this.doc.destroy()
  }
}

const show = clients => () => clients.map(client => client.told).join('\n')

/** Waits until all clients read the same and it passes `expectation`. */
async function same (clients, expectation, within = 5000) {
  await until(() => {
    const all = clients.map(client => client.read)
    for (const read of all.slice(1)) assert.deepEqual(read, all[0])
    const vectors = clients.map(client => client.version.yjs.vector(client.doc))
    for (const vector of vectors.slice(1)) assert.deepEqual(vector, vectors[0])
    expectation(all[0])
    return true
  }, { what: 'the same content everywhere', within, detail: show(clients) })
}

/** Runs `body` with a scope that ends every client it made, and shows the server's log when it fails. */
const within = (server, body) => async () => {
  const clients = []
  const client = (...args) => {
    const made = new Client(...args)
    clients.push(made)
    return made
  }
  try {
    await body(client)
  } catch (error) {
    error.message += `\n${server().log()}`
    throw error
  } finally {
    for (const made of clients) made.destroy()
  }
}

describe('stock clients', { concurrency: true, timeout: 90000 }, () => {
  let server
  before(async () => { server = await Server.start() })
  after(async () => { await server?.stop() })
  const scoped = body => within(() => server, body)

  for (const version of VERSIONS) {
    describe(version.name, { concurrency: true }, () => {
      const document = name => `stock ${version.name} ${name}`

      test('text, map, array and xml sync both ways, live and for a newcomer', scoped(async client => {
        const name = document('sync')
        const a = await client(version, server.yjs, name).synced()
        const b = await client(version, server.yjs, name).synced()
        assert.deepEqual(a.syncs, [true])
        a.do('type', 'hello ')
        a.do('set', 'from', 'a')
        a.do('push', 1, { two: [2] })
        a.do('element', 'p', { class: 'x' }, 'from a')
        await same([a, b], read => assert.equal(read.text, 'hello '))
        b.do('type', 'wörld 😀')
        b.do('set', 'from', { b: true })
        b.do('set', 'gone', 1)
        b.do('unset', 'gone')
        b.do('push', null, 'three')
        b.do('element', 'q', {}, 'from b')
        b.do('cut', 0, 1)
        const content = read => assert.deepEqual(read, {
          text: 'ello wörld 😀',
          map: { from: { b: true } },
          array: [1, { two: [2] }, null, 'three'],
          xml: '<p class="x">from a</p><q>from b</q>'
        })
        await same([a, b], content)
        const c = await client(version, server.yjs, name).synced()
        content(c.read)
        await same([a, b, c], content)
        for (const one of [a, b, c]) assert.deepEqual(one.closes, [], one.told)
      }))

      test('both at once and a long text', scoped(async client => {
        const name = document('both')
        const a = client(version, server.yjs, name)
        const b = client(version, server.yjs, name)
        // Before the connection stands: these travel in step 2.
        a.do('type', 'A'.repeat(200000))
        b.do('type', 'B'.repeat(200000))
        for (let i = 0; i < 50; i++) {
          a.do('set', `k${i % 7}`, `a${i}`)
          b.do('set', `k${i % 5}`, `b${i}`)
        }
        await same([a, b], read => {
          assert.equal(read.text.length, 400000)
          assert.equal(read.text.replaceAll('A', '').length, 200000)
        }, 10000)
        await a.synced()
        await b.synced()
      }))

      test('presence appears, changes, and goes at once with its owner', scoped(async client => {
        const name = document('presence')
        const a = await client(version, server.yjs, name).synced()
        const b = await client(version, server.yjs, name).synced()
        a.provider.awareness.setLocalStateField('user', { name: 'Ada' })
        b.provider.awareness.setLocalStateField('user', { name: 'Bob' })
        await until(() => a.sees(b)?.user?.name === 'Bob' && b.sees(a)?.user?.name === 'Ada', { what: 'both see each other' })
        a.provider.awareness.setLocalStateField('cursor', 7)
        await until(() => b.sees(a)?.cursor === 7, { what: 'a moved cursor' })
        const late = await client(version, server.yjs, name).synced()
        await until(() => late.sees(a)?.cursor === 7 && late.sees(b)?.user, { what: 'a newcomer sees everyone' })
        b.provider.destroy()
        await until(() => !a.sees(b) && !late.sees(b), { what: 'a destroyed client is gone', within: 1500 })
        // A socket that ends without a word: the server has to notice and tell.
        late.provider.shouldConnect = false
        late.provider.ws.terminate()
        await until(() => !a.sees(late), { what: 'a client whose socket broke is gone', within: 1500 })
        assert.equal(a.sees(a).user.name, 'Ada')
        assert.deepEqual(a.closes, [], a.told)
      }))

      test('a client that comes back with its document is seen again and has missed nothing', scoped(async client => {
        const name = document('return')
        const a = await client(version, server.yjs, name).synced()
        const b = await client(version, server.yjs, name).synced()
        b.provider.awareness.setLocalStateField('user', { name: 'Bob' })
        await until(() => a.sees(b)?.user, { what: 'presence' })
        b.provider.disconnect()
        await until(() => !a.sees(b), { what: 'gone while away', within: 1500 })
        a.do('type', 'while away ')
        b.do('type', 'made offline ')
        b.provider.connect()
        await b.synced()
        await same([a, b], read => assert.equal(read.text.length, 'while away made offline '.length))
        // The stock client shows itself with the clock that was cleared, so peers may wait for its renewal (15 s).
        await until(() => a.sees(b)?.user?.name === 'Bob', { what: 'seen again', within: 22000, every: 20 })
        await until(() => b.sees(a), { what: 'sees again', within: 22000, every: 20 })
      }))

      test('alone for 45 s without a reconnect', { timeout: 60000 }, scoped(async client => {
        const quiet = [client(version, server.yjs, document('alone'))]
        // Someone who shows no presence renews nothing, so nothing of their own can be echoed to keep them.
        if (!REFERENCE) quiet.push(client(version, server.yjs, document('alone and hidden')))
        quiet[1]?.provider.awareness.setLocalState(null)
        for (const one of quiet) await one.synced()
        const start = performance.now()
        await until(() => {
          for (const one of quiet) {
            if (one.closes.length > 0) throw Object.assign(new Error(`reconnected after ${Math.round(performance.now() - start)} ms: ${one.told}`), { fatal: true })
          }
          return performance.now() - start > 45000
        }, { what: '45 s', within: 50000, every: 100 })
        for (const one of quiet) assert.equal(one.provider.synced, true)
      }))
    })
  }

  test('all versions meet in one document and converge', scoped(async client => {
    const name = 'stock mixed'
    const all = []
    for (const version of VERSIONS) all.push(await client(version, server.yjs, name).synced(), await client(version, server.yjs, name).synced())
    for (const [i, one] of all.entries()) {
      one.do('type', `[${i}]`)
      one.do('set', `key${i}`, i)
      one.do('set', 'shared', i)
      one.do('push', i)
      one.do('element', `e${i}`, { id: `n${i}` }, `text ${i}`)
      one.provider.awareness.setLocalStateField('n', i)
    }
    await same(all, read => {
      for (const i of all.keys()) {
        assert.ok(read.text.includes(`[${i}]`))
        assert.equal(read.map[`key${i}`], i)
        assert.ok(read.xml.includes(`<e${i} id="n${i}">text ${i}</e${i}>`))
      }
      assert.deepEqual(read.array.toSorted((x, y) => x - y), [...all.keys()])
    }, 10000)
    await until(() => all.every(one => all.every((other, i) => one.sees(other)?.n === i)), { what: 'everyone sees everyone' })
    for (const one of all) one.do('cut', 0, 2)
    await same(all, read => assert.ok(read.text.length < 24), 10000)
    const fresh = [await client(VERSIONS[0], server.yjs, name).synced(), await client(VERSIONS[3], server.yjs, name).synced()]
    await same([...all, ...fresh], read => assert.ok(read.text.length < 24))
  }))
})

describe('document names', { timeout: 60000 }, () => {
  let server
  before(async () => { server = await Server.start() })
  after(async () => { await server?.stop() })

  // No two of these are the same in a URL: each is a document of its own.
  const NAMES = [
    'a', 'A', 'a/b', 'a%2Fb', 'a%2fb/c', 'a/b/c', 'a//b', 'a/b/', '100%', '100%25', '%zz', 'ünï-çødé/文書/😀', 'with space', 'plus+sign',
    '%C3%BC', 'q=1&r=2', 'semi;colon', "quote'd", '~tilde.dots..', 'x'.repeat(200)
  ]

  test('two clients with one name meet, others do not, also after a restart', within(() => server, async client => {
    const first = []
    for (const [i, name] of NAMES.entries()) {
      const one = client(VERSIONS[i % 4], server.yjs, name)
      one.do('type', `first of ${i};`)
      first.push(one)
    }
    const failures = []
    await Promise.all(first.map((one, i) => one.synced().catch(error => failures.push(`${JSON.stringify(NAMES[i])}: ${error.message.split('\n').slice(0, 2).join(' ')}`))))
    assert.deepEqual(failures, [], 'names that cannot be used')
    const second = []
    for (const [i, name] of NAMES.entries()) {
      const one = await client(VERSIONS[(i + 1) % 4], server.yjs, name).synced()
      one.do('type', `second of ${i};`)
      second.push(one)
    }
    for (const i of NAMES.keys()) {
      await same([first[i], second[i]], read => assert.equal(read.text, `first of ${i};second of ${i};`, `document ${JSON.stringify(NAMES[i])}`))
    }
    for (const one of [...first, ...second]) one.destroy()
    await server.restart()
    for (const [i, name] of NAMES.entries()) {
      const one = await client(VERSIONS[(i + 2) % 4], server.yjs, name).synced()
      assert.equal(one.read.text, `first of ${i};second of ${i};`, `document ${JSON.stringify(name)} after a restart`)
      one.destroy()
    }
  }))

  test('names that cannot be are refused for good', { skip: REFERENCE }, within(() => server, async client => {
    for (const name of ['a%00b', 'x'.repeat(2000), '']) {
      const one = client(VERSIONS[2], server.yjs, name)
      const closed = new Promise(resolve => one.provider.once('closed', resolve))
      const { code, reason } = await deadline(closed, 3000, `the end of ${JSON.stringify(name.slice(0, 9))}`)
      assert.ok(code >= 4400 && code < 4500, `${code} ${reason}`)
      assert.ok(reason.length > 0)
    }
  }))

  test('parameters of the URL are not part of the name', within(() => server, async client => {
    const a = await client(VERSIONS[2], server.yjs, 'with parameters', { params: { some: 'thing' } }).synced()
    const b = await client(VERSIONS[2], server.yjs, 'with parameters').synced()
    a.do('type', 'x')
    await same([a, b], read => assert.equal(read.text, 'x'))
  }))
})

describe('a server that is killed and started again', { concurrency: true, timeout: 90000 }, () => {
  for (const version of VERSIONS) {
    describe(version.name, { concurrency: 1 }, () => {
      let server
      before(async () => { server = await Server.start() })
      after(async () => { await server?.stop() })

      test('clients come back by themselves, nothing is lost and nothing doubled', within(() => server, async client => {
        const name = 'restarted'
        const a = await client(version, server.yjs, name).synced()
        const b = await client(version, server.yjs, name).synced()
        a.provider.awareness.setLocalStateField('user', 'Ada')
        await until(() => b.sees(a)?.user === 'Ada', { what: 'presence' })
        let expected = ''
        const word = (one, text) => {
          one.do('type', text)
          expected += text
        }
        const all = read => assert.deepEqual(read.text.split(' ').toSorted(), expected.split(' ').toSorted())
        for (let round = 0; round < 3; round++) {
          word(a, `a${round} `)
          word(b, `b${round} `)
          await same([a, b], all)
          // Typed into a socket that is about to break: only the clients know it.
          word(a, `lost${round} `)
          await server.kill()
          word(a, `off-a${round} `)
          word(b, `off-b${round} `)
          a.do('push', round)
          b.do('set', 'round', round)
          await until(() => !a.provider.wsconnected && !b.provider.wsconnected, { what: 'both notice' })
          await server.up()
          await a.synced(8000)
          await b.synced(8000)
          await same([a, b], read => {
            all(read)
            assert.deepEqual(read.array, [...Array(round + 1).keys()])
            assert.deepEqual(read.map, { round })
          })
        }
        a.destroy()
        b.destroy()
        const fresh = await client(version, server.yjs, name).synced()
        all(fresh.read)
        fresh.destroy()
        // From the store and the journal alone.
        await server.restart()
        const cold = await client(version, server.yjs, name).synced()
        all(cold.read)
        assert.deepEqual(cold.read.array, [0, 1, 2])
      }))

      test('a server that stops on request says so in a way that clients retry', within(() => server, async client => {
        const a = await client(version, server.yjs, 'stopped').synced()
        a.do('type', 'kept')
        const b = await client(version, server.yjs, 'stopped').synced()
        await same([a, b], read => assert.equal(read.text, 'kept'))
        const end = await server.term()
        assert.deepEqual(end, { code: 0, signal: null }, 'exit status of a requested stop')
        await until(() => !a.provider.wsconnected, { what: 'the client notices' })
        await server.up()
        await a.synced(8000)
        assert.equal(a.read.text, 'kept')
      }))

      // The reference relays before it stores.
      test('a newcomer finds everything that anyone had seen, before an old client returns', { skip: REFERENCE }, within(() => server, async client => {
        const name = 'seen'
        const a = await client(version, server.yjs, name).synced()
        const b = await client(version, server.yjs, name).synced()
        for (let i = 0; i < 40; i++) a.do('type', `${i},`)
        await until(() => b.read.text.length > 60, { what: 'b has seen a part', every: 0 })
        const seen = b.read.text
        await server.kill()
        a.destroy()
        b.destroy()
        await server.up()
        const c = await client(version, server.yjs, name).synced()
        assert.ok(c.read.text.startsWith(seen), `what another client had seen is there: ${seen} / ${c.read.text}`)
      }))
    })
  }
})
