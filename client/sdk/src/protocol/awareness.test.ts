/**
 * What the server's presence rules (PR5 to PR7 of PROTOCOL.md) rely on y-protocols to do. Should a
 * later version behave otherwise, these say so before people vanish from each other's screens.
 */

import { afterEach, describe, expect, it, vi } from 'vitest'
import { applyAwarenessUpdate, Awareness, encodeAwarenessUpdate } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { Reader, Writer } from './wire.js'

const all: Awareness[] = []

function awareness(): Awareness {
  const made = new Awareness(new Y.Doc())
  all.push(made)
  return made
}

function entry(client: number, clock: number, json: string): Uint8Array {
  return new Writer().uint(1).uint(client).uint(clock).str(json).finish()
}

function clockOf(update: Uint8Array): number {
  const reader = new Reader(update)
  reader.uint()
  reader.uint()
  return reader.uint()
}

function clock(of: Awareness): number {
  return of.meta.get(of.clientID)?.clock ?? -1
}

afterEach(() => {
  for (const made of all.splice(0)) made.destroy()
  vi.useRealTimers()
})

describe('y-protocols', () => {
  it('[PR5] ignores an entry whose clock is not above the one it holds', () => {
    const reader = awareness()
    applyAwarenessUpdate(reader, entry(7, 5, '"a"'), null)
    applyAwarenessUpdate(reader, entry(7, 5, '"b"'), null)
    applyAwarenessUpdate(reader, entry(7, 4, '"c"'), null)
    expect(reader.getStates().get(7)).toBe('a')
  })

  it('[PR5] takes a removal with the clock it holds, and remembers the clock', () => {
    const reader = awareness()
    applyAwarenessUpdate(reader, entry(7, 5, '"a"'), null)
    applyAwarenessUpdate(reader, entry(7, 5, 'null'), null)
    expect(reader.getStates().has(7)).toBe(false)
    applyAwarenessUpdate(reader, entry(7, 5, '"a"'), null)
    expect(reader.getStates().has(7)).toBe(false)
    applyAwarenessUpdate(reader, entry(7, 6, '"a"'), null)
    expect(reader.getStates().get(7)).toBe('a')
  })

  it.each([0, 3, 50])('[PR6] answers a poke %i above its clock with its own state and a higher clock', (ahead) => {
    const owner = awareness()
    owner.setLocalState({ name: 'Ada' })
    const sent: Uint8Array[] = []
    // As y-websocket does: whatever an update changed is sent.
    owner.on('update', ({ added, updated, removed }: Record<'added' | 'updated' | 'removed', number[]>) => {
      sent.push(encodeAwarenessUpdate(owner, [...added, ...updated, ...removed]))
    })
    const held = clock(owner) + ahead
    applyAwarenessUpdate(owner, entry(owner.clientID, held, 'null'), null)
    expect(owner.getLocalState()).toEqual({ name: 'Ada' })
    expect(clock(owner)).toBe(held + 1)
    expect(sent.map(clockOf)).toEqual([held + 1])
    // It has moved on since: the same poke again is old news.
    applyAwarenessUpdate(owner, entry(owner.clientID, held, 'null'), null)
    expect(sent.length).toBe(1)
  })

  it('[PR5] takes its own state back from an echo with a higher clock: why the server never raises one', () => {
    const owner = awareness()
    owner.setLocalState({ at: 'new' })
    applyAwarenessUpdate(owner, entry(owner.clientID, clock(owner) + 2, '{"at":"old"}'), null)
    expect(owner.getLocalState()).toEqual({ at: 'old' })
  })

  it('[PR7] forgets others after 30 s without a higher clock, whatever is repeated', () => {
    // The timers are ours, the clock is not (lib0 keeps the real one), so the entries are made old by hand.
    vi.useFakeTimers()
    const reader = awareness()
    for (const client of [7, 8]) {
      applyAwarenessUpdate(reader, entry(client, 5, '"a"'), null)
      const meta = reader.meta.get(client)
      if (meta !== undefined) meta.lastUpdated -= 30_000
    }
    applyAwarenessUpdate(reader, entry(7, 5, '"a"'), null)
    applyAwarenessUpdate(reader, entry(8, 6, '"a"'), null)
    vi.advanceTimersByTime(3_000)
    expect(reader.getStates().has(7)).toBe(false)
    expect(reader.getStates().has(8)).toBe(true)
  })

  it('[YW4] does nothing on an update without entries', () => {
    const reader = awareness()
    const onUpdate = vi.fn()
    reader.on('update', onUpdate)
    applyAwarenessUpdate(reader, Uint8Array.of(0), null)
    expect(onUpdate).not.toHaveBeenCalled()
  })
})
