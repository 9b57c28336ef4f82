/** A provider on a link that moves only when the test says so, with the server's side in the test's hands. */

import { vi } from 'vitest'
import * as Y from 'yjs'
import type { Endpoints, Health } from '../../src/discovery.js'
import { Connection } from '../../src/connection.js'
import type { Dialer } from '../../src/link/link.js'
import type { MemoryLink } from '../../src/link/memory.js'
import { MemoryNetwork } from '../../src/link/memory.js'
import type { ClientMessage, Opened, ServerMessage } from '../../src/protocol/index.js'
import { decodeClient, encodeServer, ERRORS, Position } from '../../src/protocol/index.js'
import { QuicMemory } from '../../src/quic-memory.js'
import type { ErrorName } from '../../src/protocol/index.js'
import type { SynclineProviderOptions } from '../../src/provider.js'
import { SynclineProvider } from '../../src/provider.js'

export const EPOCH = new Uint8Array(16).fill(7)
export const OTHER_EPOCH = new Uint8Array(16).fill(8)
export const SESSION = new Uint8Array(16).fill(3)
export const NOTHING = new Uint8Array(0)
export const EMPTY_VECTOR = new Uint8Array([0])

/** What the client sent, with its channel; datagrams as they are. */
export type Heard =
  | ({ readonly channel: number } & ClientMessage)
  | { readonly channel: number; readonly type: 'datagram'; readonly body: Uint8Array }
  | { readonly channel: number; readonly type: 'finish' }
  | { readonly channel: number; readonly type: 'linkClosed' }

/** Lets everything that waits on promises run, without moving the clock. */
export async function settle(): Promise<void> {
  await vi.advanceTimersByTimeAsync(0)
}

export async function advance(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms)
}

/** The world of one test. Use with fake timers. */
export class World {
  readonly network = new MemoryNetwork()
  health: Health = 'up'
  limits: readonly { readonly key: number; readonly value: number }[] = []
  nProbes = 0
  nDiscoveries = 0
  discoveryError: Error | undefined
  /** Instead of the one network that is there by default. */
  dialers: readonly Dialer[] | undefined
  /** What is remembered of QUIC between pages. */
  kept: string | null
  readonly connection: Connection

  /** `kept` is what the page before remembered of QUIC. */
  constructor(kept: string | null = null) {
    this.kept = kept
    this.connection = new Connection({
      discover: () => {
        this.nDiscoveries += 1
        const endpoints: Endpoints = { webtransport: undefined, websocketUrl: 'ws://test/ws' }
        return this.discoveryError === undefined ? Promise.resolve(endpoints) : Promise.reject(this.discoveryError)
      },
      probe: () => {
        this.nProbes += 1
        return Promise.resolve(this.health)
      },
      dialers: () => this.dialers ?? [this.network.dialer],
      quic: new QuicMemory({ read: () => this.kept, write: (value) => (this.kept = value) }),
      random: () => 0.5,
    })
  }

  provider(doc = new Y.Doc(), options: SynclineProviderOptions = {}, name = 'notes'): SynclineProvider {
    return new SynclineProvider('http://test', name, doc, { connection: this.connection, ...options })
  }

  /** The newest link. */
  get link(): MemoryLink {
    const link = this.network.links.at(-1)
    if (link === undefined) throw new Error('nothing was dialled')
    return link
  }

  get nLinks(): number {
    return this.network.links.length
  }

  /** What the client sent on the newest link since the last call, without pings and presence. */
  heard(link = this.link): Heard[] {
    return this.heardAll(link).filter(({ type }) => type !== 'datagram' && type !== 'presence' && type !== 'ping')
  }

  /** What the client sent on the newest link since the last call. */
  heardAll(link = this.link): Heard[] {
    const heard: Heard[] = []
    for (const sent of link.takeSent()) {
      if (sent.kind === 'finish') heard.push({ channel: sent.channel, type: 'finish' })
      else if (sent.kind === 'close') heard.push({ channel: 0, type: 'linkClosed' })
      else if (sent.kind === 'datagram') heard.push({ channel: sent.channel, type: 'datagram', body: sent.message })
      else {
        const message = decodeClient(sent.message)
        if (message === null) throw new Error('the client sent an unknown message')
        heard.push({ channel: sent.channel, ...message })
      }
    }
    return heard
  }

  /** What was sent of one type. */
  heardOf<T extends ClientMessage['type']>(type: T): (ClientMessage & { type: T; channel: number })[] {
    return this.heardAll().filter((heard): heard is ClientMessage & { type: T; channel: number } => heard.type === type)
  }

  say(message: ServerMessage, channel = 1, link = this.link): void {
    link.deliver(channel, encodeServer(message))
  }

  /** The link is lost, and everybody has heard of it. */
  async lose(link = this.link): Promise<void> {
    link.drop()
    await settle()
  }

  /** Answers HELLO. */
  async welcome(deadAfterMs = 25_000, link?: MemoryLink): Promise<void> {
    await settle()
    this.say(
      {
        type: 'welcome',
        version: 1,
        features: [],
        sessionId: SESSION,
        nodeId: 'node',
        userId: '',
        userName: '',
        limits: this.limits,
        heartbeatMs: 10_000,
        deadAfterMs,
        authLifetimeMs: 0,
      },
      0,
      link ?? this.link,
    )
  }

  /** Greets and opens the first document; returns what the client sent after that. */
  async open(fields: Partial<Opened> = {}, channel = 1): Promise<Heard[]> {
    await this.welcome()
    this.heard()
    this.say(opened(fields), channel)
    return this.heard()
  }
}

export function opened(fields: Partial<Opened> = {}): Opened {
  return {
    type: 'opened',
    epoch: EPOCH,
    position: new Position(),
    access: 'write',
    stateVector: EMPTY_VECTOR,
    update: NOTHING,
    awareness: NOTHING,
    ...fields,
  }
}

export function refusal(name: ErrorName, retryAfterMs = 0): { code: number; text: string; retryable: boolean; retryAfterMs: number } {
  return { code: ERRORS[name].number, text: 'because', retryable: ERRORS[name].retryable, retryAfterMs }
}

/** A document that another client wrote, and what a server tells of it. */
export function written(text: string): { doc: Y.Doc; update: Uint8Array; stateVector: Uint8Array } {
  const doc = new Y.Doc()
  doc.getText('t').insert(0, text)
  return { doc, update: Y.encodeStateAsUpdate(doc), stateVector: Y.encodeStateVector(doc) }
}
