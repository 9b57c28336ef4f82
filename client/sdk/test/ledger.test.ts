import { describe, expect, it } from 'vitest'
import { Ledger } from '../src/ledger.js'

describe('ledger', () => {
  it('starts with nothing pending', () => {
    const ledger = new Ledger()
    expect([ledger.pending, ledger.state]).toEqual([0, 'saved'])
  })

  it('is local until sent, saving until acknowledged, then saved', () => {
    const ledger = new Ledger()
    ledger.edit()
    expect(ledger.state).toBe('local')
    expect(ledger.send(false)).toBe(1)
    expect(ledger.state).toBe('saving')
    ledger.acknowledge(1)
    expect([ledger.pending, ledger.state]).toEqual([0, 'saved'])
  })

  it('acknowledges cumulatively and only what was sent by then', () => {
    const ledger = new Ledger()
    for (let i = 0; i < 3; i += 1) {
      ledger.edit()
      ledger.send(false)
    }
    ledger.acknowledge(2)
    expect(ledger.pending).toBe(1)
    ledger.acknowledge(2)
    expect(ledger.pending).toBe(1)
    ledger.acknowledge(3)
    expect(ledger.pending).toBe(0)
  })

  it('one message may speak for many edits', () => {
    const ledger = new Ledger()
    for (let i = 0; i < 5; i += 1) ledger.edit()
    ledger.send(true)
    ledger.edit()
    ledger.acknowledge(1)
    expect([ledger.pending, ledger.state]).toEqual([1, 'local'])
  })

  it('keeps everything that is not durable across a reset, and numbers messages from one again', () => {
    const ledger = new Ledger()
    ledger.edit()
    ledger.send(false)
    ledger.edit()
    ledger.send(false)
    ledger.acknowledge(1)
    ledger.reset()
    expect([ledger.pending, ledger.state]).toEqual([1, 'local'])
    expect(ledger.send(true)).toBe(1)
    ledger.acknowledge(1)
    expect(ledger.pending).toBe(0)
  })

  it('an acknowledgement of the old channel means nothing after a reset', () => {
    const ledger = new Ledger()
    ledger.edit()
    ledger.send(false)
    ledger.reset()
    ledger.acknowledge(1)
    expect(ledger.pending).toBe(1)
  })

  it('a refused edit stays pending though its number is settled, and so does what came after it', () => {
    const ledger = new Ledger()
    for (let i = 0; i < 3; i += 1) {
      ledger.edit()
      ledger.send(false)
    }
    ledger.refuse(2)
    ledger.acknowledge(3)
    expect([ledger.pending, ledger.held, ledger.state]).toEqual([2, true, 'local'])
    const sequence = ledger.send(true)
    expect([ledger.held, ledger.state]).toEqual([false, 'saving'])
    ledger.acknowledge(sequence)
    expect(ledger.pending).toBe(0)
  })

  it('a whole message that was already on its way makes good for a refusal', () => {
    const ledger = new Ledger()
    ledger.edit()
    ledger.send(false)
    ledger.send(true)
    ledger.refuse(1)
    expect(ledger.held).toBe(false)
    ledger.acknowledge(2)
    expect(ledger.pending).toBe(0)
  })

  it('doubts what the server sent until something sent later is durable', () => {
    const ledger = new Ledger()
    ledger.send(true)
    ledger.receive()
    ledger.acknowledge(1)
    expect(ledger.doubtful).toBe(true)
    ledger.send(false)
    ledger.acknowledge(2)
    expect(ledger.doubtful).toBe(false)
  })
})
