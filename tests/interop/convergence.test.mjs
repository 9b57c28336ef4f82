// Random sessions of raw Yjs clients over links that delay, repeat, reorder, merge and break: whatever happens, once the
// faults end every replica shows the same, and so does a newcomer, also after the server was started anew.
//
//   SEED=n      the first session's seed (default: of the clock). A failure prints the seed of its own session.
//   SESSIONS=n  how many sessions
//   REPLAY=file a plan in JSON, as a failure writes it, in place of made ones
//   ON=name     only the server of that name (see SERVERS in lib/plan.mjs)
//   SHRINK=1    look for a shorter plan that still fails (together with SEED or REPLAY)
//   TRIES=n     how often a single plan is played until it fails: the plan is fixed, the order of arrival is not (default 5)

import { after, test } from 'node:test'
import { readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Server, stopAll } from './lib/server.mjs'
import { Session } from './lib/session.mjs'
import { SERVERS, makePlan } from './lib/plan.mjs'
import { deadline } from './lib/until.mjs'

after(stopAll)

const SEED = Number(process.env.SEED ?? (Date.now() % 2 ** 31))
const SESSIONS = Number(process.env.SESSIONS ?? 300)
const TRIES = Number(process.env.TRIES ?? 5)
const BATCH = 25
const SESSION_MS = 60000

/** The plan of a seed, on the server that ON names if it does. */
function planOf (seed) {
  const plan = makePlan(seed)
  return process.env.ON === undefined ? plan : { ...plan, server: process.env.ON }
}

/** Plays one plan to the end; the server is left running. */
async function play (server, plan, name) {
  const session = new Session(server, plan, name)
  try {
    await deadline((async () => {
      await session.play()
      await session.heal()
    })(), SESSION_MS, 'the session')
    return session
  } finally {
    session.leave()
  }
}

/** The error with which a plan fails on a server of its own, or null. */
async function outcome (plan) {
  const server = await Server.start({ config: SERVERS[plan.server] })
  try {
    const session = await play(server, plan, 'convergence')
    for (const hard of [true, false]) {
      await server.restart({ hard })
      await deadline(session.coldCheck(), SESSION_MS, 'the check after a restart')
    }
    return null
  } catch (error) {
    return error
  } finally {
    await server.stop()
  }
}

/** The error with which a plan fails in one of a few tries, or null. */
async function failure (plan) {
  for (let i = 0; i < TRIES; i++) {
    const error = await outcome(plan)
    if (error) return error
  }
  return null
}

/** Removes operations, edits and clients as long as the plan fails. */
async function shrink (plan) {
  const fails = ops => failure({ ...plan, ops })
  let { ops } = plan
  let error = null
  for (let size = Math.ceil(ops.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < ops.length;) {
      const less = [...ops.slice(0, at), ...ops.slice(at + size)]
      const again = await fails(less)
      if (again) {
        ops = less
        error = again
        console.log(`shrunk to ${ops.length} operations: ${again.message.split('\n')[0]}`)
      } else {
        at += size
      }
    }
  }
  for (const [i, [c, verb, edits]] of ops.entries()) {
    if (verb !== 'edit') continue
    for (let at = 0; at < edits.length && edits.length > 1;) {
      const less = edits.toSpliced(at, 1)
      const again = await fails(ops.toSpliced(i, 1, [c, verb, less]))
      if (again) {
        edits.splice(at, 1)
        error = again
      } else {
        at++
      }
    }
  }
  return { plan: { ...plan, ops }, error }
}

function report (plan, error, server) {
  const file = join(tmpdir(), `syncline-plan-${plan.seed}.json`)
  writeFileSync(file, JSON.stringify(plan))
  const shown = plan.ops.map(op => {
    const line = JSON.stringify(op)
    return line.length > 400 ? `${line.slice(0, 400)}…` : line
  })
  const list = shown.length > 120 ? [...shown.slice(0, 20), `… ${shown.length - 40} more, in the file …`, ...shown.slice(-20)] : shown
  error.message = `session SEED=${plan.seed} SESSIONS=1 on the ${plan.server} server failed: ${error.message}\nreplay: REPLAY=${file} (SHRINK=1 to make it shorter)\nclients ${JSON.stringify(plan.clients)}\noperations:\n${list.join('\n')}\n${server ? server.log() : ''}`
  return error
}

if (process.env.REPLAY !== undefined || process.env.SHRINK !== undefined) {
  test('one plan', { timeout: 3600000 }, async () => {
    let plan = process.env.REPLAY !== undefined ? JSON.parse(readFileSync(process.env.REPLAY, 'utf8')) : planOf(SEED)
    let error = await failure(plan)
    if (error && process.env.SHRINK !== undefined) {
      const least = await shrink(plan)
      plan = least.plan
      error = least.error ?? error
    }
    if (error) throw report(plan, error)
  })
} else {
  test(`${SESSIONS} random sessions converge`, { timeout: 60000 + SESSIONS * 4000 }, async t => {
    console.log(`convergence: SEED=${SEED} SESSIONS=${SESSIONS}`)
    t.diagnostic(`SEED=${SEED} SESSIONS=${SESSIONS}`)
    const lanes = {}
    for (const [name, config] of Object.entries(SERVERS)) lanes[name] = { server: await Server.start({ config }), batch: [] }
    let operations = 0
    const cold = async ({ server, batch }) => {
      for (const hard of [true, false]) {
        await server.restart({ hard })
        for (const session of batch) {
          await deadline(session.coldCheck(), SESSION_MS, 'the check after a restart').catch(error => { throw report(session.plan, error, server) })
        }
      }
      batch.length = 0
    }
    for (let i = 0; i < SESSIONS; i++) {
      const plan = planOf(SEED + i)
      operations += plan.ops.length
      const lane = lanes[plan.server]
      lane.batch.push(await play(lane.server, plan, `convergence/${plan.seed}`).catch(error => { throw report(plan, error, lane.server) }))
      if (lane.batch.length === BATCH) await cold(lane)
    }
    for (const lane of Object.values(lanes)) {
      await cold(lane)
      await lane.server.stop()
    }
    t.diagnostic(`${operations} operations`)
  })
}
