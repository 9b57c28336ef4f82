/**
 * One connection to one server, shared by every document that is edited there.
 *
 * It dials, greets, hands each document the session, and dials again when the session is lost, for
 * as long as it has members. It never loops on a condition that a retry cannot help.
 */

import { backoffMs, withinMs } from './backoff.js'
import type { Endpoints, Health } from './discovery.js'
import { DiscoveryRefusedError } from './discovery.js'
import type { Carrier, Dialer } from './link/link.js'
import { abortReason } from './link/link.js'
import { encodeClient } from './protocol/index.js'
import type { Welcome } from './protocol/index.js'
import { race } from './race.js'
import { guarded } from './report.js'
import type { QuicMemory } from './quic-memory.js'
import type { Failure, Goaway, SessionObserver } from './session.js'
import { networkFailure, Session } from './session.js'
import { DeadlineError, orAbort, pause, within } from './timing.js'

/** What a connection tells each of its documents. */
export interface Member {
  /** A dial begins. */
  onConnecting(): void
  /** A session stands; the member opens its channel on it. */
  onConnected(session: Session): void
  /** The session is gone, or could not be had. Another attempt follows. */
  onLost(failure: Failure): void
  /** No attempt follows. */
  onFailed(failure: Failure): void
  /** The server wants its clients elsewhere; a move follows within its window. */
  onGoaway(goaway: Goaway): void
  /** Another session stands beside the one in use. Resolves when the member is open there, or cannot be. */
  onMoving(session: Session): Promise<void>
  /** That session is the one in use from now on; the old one is left in this moment. */
  onMoved(session: Session): void
  /** That session came to nothing; the old one goes on. */
  onMoveFailed(): void
  /** A message arrived on the session. */
  onPulse(): void
  /** The round trip was measured; milliseconds. */
  onRtt(ms: number): void
}

/** The world outside, so that tests can bring their own. */
export interface Environment {
  readonly discover: (signal: AbortSignal) => Promise<Endpoints>
  /** Asks whether the server is there. Never rejects. */
  readonly probe: (signal: AbortSignal) => Promise<Health>
  /** Ways to dial, best first. */
  readonly dialers: (endpoints: Endpoints) => readonly Dialer[]
  /** What is known of QUIC on this network. */
  readonly quic: QuicMemory
  /** Uniform in [0, 1). */
  readonly random: () => number
}

/** A page, or a runtime that has neither. */
const page: { window?: Window; document?: Document } = globalThis

/** The client's name in HELLO; servers log it. */
const CLIENT_NAME = '@syncline/client'

/** Reported in HELLO; kept equal to package.json by a test. */
export const CLIENT_VERSION = '0.1.0'

/** How long the better carrier runs alone: QUIC needs one round trip, blocked UDP never answers. */
const HEAD_START_MS = 1_500

/** Firefox keeps a blocked WebTransport pending for half a minute; we do not. */
const DIAL_DEADLINE_MS = 15_000

/** After a lost session the server is probed this long before the patience of backoff sets in. */
const QUICK_RETURN_MS = 10_000

/** Probes are this far apart at least; up to as much again is added at random. */
const PROBE_GAP_MS = 250

/** A session that lasted less than this does not count as a success: no tight loop of greetings. */
const STABLE_AFTER_MS = 5_000

/** A session on the second-best carrier stands at least this long before the best is tried again. */
const UPGRADE_AFTER_MS = 30_000

/** A new session that is not up by then is not worth leaving the old one for. */
const MOVE_DEADLINE_MS = 20_000

/** Documents that are not open on the new session by then follow when the old one is left. */
const MOVE_DOCUMENTS_MS = 5_000

/** How many round trips are remembered: some fifteen seconds of them. */
const N_RTTS = 4

interface Ending {
  readonly failure: Failure
  /** How long the session stood; undefined when there was none. */
  readonly livedMs: number | undefined
}

/** A shared connection. It runs while it has members. */
export class Connection {
  readonly #environment: Environment
  readonly #members = new Set<Member>()
  #run: AbortController | undefined
  #nap: AbortController | undefined
  #session: Session | undefined
  #connecting = false
  /** The session whose end matters: from its greeting on, until it was left for another. */
  #inCharge: Session | undefined
  /** Ends with that session: what waits for a time to move. */
  #stay = new AbortController()
  #end: (failure: Failure) => void = () => undefined
  #isMoving = false
  /** The page is put away, and perhaps never shown again. */
  #isAway = false
  #onReturn: () => void = () => undefined
  #previousSession: Uint8Array | undefined
  #comeBackAt = 0
  #rttsMs: number[] = []

  constructor(environment: Environment) {
    this.#environment = environment
  }

  /** The carrier of the session that stands now. */
  get carrier(): Carrier | undefined {
    return this.#session?.carrier
  }

  /**
   * The round trip of this session in milliseconds: the best of the last few measurements, since a
   * busy page answers late and says nothing about the network with that.
   */
  get rttMs(): number | undefined {
    return this.#rttsMs.length === 0 ? undefined : Math.min(...this.#rttsMs)
  }

  /** Adds a document. The connection starts with its first one. */
  attach(member: Member): void {
    if (this.#members.has(member)) return
    this.#members.add(member)
    if (this.#run === undefined) this.#start()
    else if (this.#session !== undefined) member.onConnected(this.#session)
    else if (this.#connecting) member.onConnecting()
  }

  /** Removes a document, which has closed its own channel. The connection ends with its last one. */
  detach(member: Member): void {
    this.#members.delete(member)
    if (this.#members.size === 0) this.#stop()
  }

  #start(): void {
    const run = new AbortController()
    this.#run = run
    page.window?.addEventListener('online', this.#onNetworkChange)
    page.window?.addEventListener('pagehide', this.#onPageHide)
    page.window?.addEventListener('pageshow', this.#onPageShow)
    page.document?.addEventListener('visibilitychange', this.#onVisible)
    void this.#loop(run.signal)
  }

  #stop(): void {
    page.window?.removeEventListener('online', this.#onNetworkChange)
    page.window?.removeEventListener('pagehide', this.#onPageHide)
    page.window?.removeEventListener('pageshow', this.#onPageShow)
    this.#onReturn()
    page.document?.removeEventListener('visibilitychange', this.#onVisible)
    this.#run?.abort(new Error('disconnected'))
    this.#run = undefined
    this.#connecting = false
  }

  async #loop(signal: AbortSignal): Promise<void> {
    let nFailures = 0
    while (!signal.aborted) {
      await this.#shown()
      if (isAborted(signal)) return
      this.#connecting = true
      this.#tell((member) => {
        member.onConnecting()
      })
      const { failure, livedMs } = await this.#live(signal)
      if (isAborted(signal)) return
      this.#connecting = false
      if (!failure.retryable) {
        const members = [...this.#members]
        this.#members.clear()
        this.#stop()
        for (const member of members) {
          guarded(() => {
            member.onFailed(failure)
          })
        }
        return
      }
      this.#tell((member) => {
        member.onLost(failure)
      })
      await this.#shown()
      nFailures = livedMs !== undefined && livedMs >= STABLE_AFTER_MS ? 0 : nFailures + 1
      await this.#sleep(Math.max(failure.retryAfterMs, this.#comeBackAt - performance.now()), signal)
      this.#comeBackAt = 0
      if (livedMs !== undefined && nFailures <= 1) {
        if (!(await this.#awaitServer(signal))) nFailures = 1
      } else {
        await this.#sleep(backoffMs(nFailures, this.#environment.random), signal)
      }
    }
  }

  /** One attempt, and all that comes of it until no session is left. Never rejects. */
  async #live(signal: AbortSignal): Promise<Ending> {
    let since: number | undefined
    const ended = new Promise<Ending>((resolve) => {
      this.#end = (failure): void => {
        resolve({ failure, livedMs: since === undefined ? undefined : performance.now() - since })
      }
    })
    const stop = (): void => {
      this.#inCharge?.end(networkFailure('disconnected'), true)
    }
    try {
      const endpoints = await this.#environment.discover(signal)
      const { link, handlers: session } = await this.#dial(this.#dialers(endpoints), signal, {
        onWelcome: (session, welcome) => {
          since = performance.now()
          this.#take(session, welcome)
          this.#tell((member) => {
            member.onConnected(session)
          })
        },
      })
      this.#inCharge = session
      signal.addEventListener('abort', stop)
      session.start(link, this.#hello())
      return await ended
    } catch (cause) {
      const message = cause instanceof Error ? cause.message : String(cause)
      const refused = cause instanceof DiscoveryRefusedError
      const failure: Failure = refused
        ? { code: 'permission_denied', message, retryable: false, retryAfterMs: 0 }
        : networkFailure(message)
      return { failure, livedMs: undefined }
    } finally {
      signal.removeEventListener('abort', stop)
    }
  }

  /** The ways to dial now: not QUIC where it was seen to be blocked a short while ago. */
  #dialers(endpoints: Endpoints): readonly Dialer[] {
    const dialers = this.#environment.dialers(endpoints)
    const others = dialers.filter(({ carrier }) => carrier !== 'webtransport')
    return this.#environment.quic.isBlocked(Date.now()) && others.length > 0 ? others : dialers
  }

  async #dial(
    dialers: readonly Dialer[],
    signal: AbortSignal,
    own: Pick<SessionObserver, 'onWelcome'> & {
      /** A session that is not in use yet ended, or should not be used. */
      readonly onUnfit?: (session: Session, why: string) => void
    },
  ): ReturnType<typeof race<Session>> {
    const observer: SessionObserver = {
      onWelcome: own.onWelcome,
      onEnd: (session, failure) => {
        own.onUnfit?.(session, failure.message)
        if (session !== this.#inCharge) return
        this.#inCharge = undefined
        this.#session = undefined
        this.#stay.abort(new Error('the session ended'))
        this.#end(failure)
      },
      onPulse: () => {
        this.#tell((member) => {
          member.onPulse()
        })
      },
      onRtt: (session, ms) => {
        if (session === this.#session) this.#measured(ms)
      },
      onSilence: (session) => {
        void this.#suspect(session)
      },
      onGoaway: (session, goaway) => {
        if (session === this.#session) void this.#moveAway(session, goaway)
        else own.onUnfit?.(session, goaway.reason)
      },
    }
    const result = await within(DIAL_DEADLINE_MS, signal, 'dial', (inner) =>
      race(dialers, HEAD_START_MS, inner, () => new Session(observer)),
    )
    if (signal.aborted) {
      result.link.close('disconnected')
      throw abortReason(signal)
    }
    if (result.link.carrier === 'webtransport') this.#environment.quic.worked()
    // Only a network that lets WebSocket through in the same moment tells something about QUIC.
    else if (result.beaten.includes('webtransport')) this.#environment.quic.lost(Date.now())
    return result
  }

  /** From now on this session is the one in use. */
  #take(session: Session, welcome: Welcome): void {
    this.#session = session
    this.#inCharge = session
    this.#connecting = false
    this.#previousSession = welcome.sessionId
    this.#rttsMs = []
    this.#stay.abort(new Error('the session was left'))
    this.#stay = new AbortController()
    if (session.carrier === 'websocket') void this.#upgrade(session, this.#stay.signal)
  }

  #measured(ms: number): void {
    this.#rttsMs = [...this.#rttsMs, ms].slice(-N_RTTS)
    const best = this.rttMs ?? ms
    this.#tell((member) => {
      member.onRtt(best)
    })
  }

  #hello(): Uint8Array {
    return encodeClient({
      type: 'hello',
      versions: [1],
      features: [],
      auth: { kind: 'none' },
      clientName: CLIENT_NAME,
      clientVersion: CLIENT_VERSION,
      previousSessionId: this.#previousSession,
    })
  }

  /**
   * The session is silent where an answer was due. A carrier may take half a minute to notice that
   * the server's process is gone; its HTTP port tells at once. Mere slowness is not held against it.
   */
  async #suspect(session: Session): Promise<void> {
    const signal = this.#run?.signal
    if (signal === undefined) return
    if ((await this.#environment.probe(signal)) === 'down') session.end(networkFailure('the server is gone'))
    else session.check()
  }

  /**
   * GOAWAY: move at a random moment of the window. Where no new session is to be had, which is so when
   * the only server stops, the old one goes on until the server ends it.
   */
  async #moveAway(session: Session, goaway: Goaway): Promise<void> {
    const signal = this.#stay.signal
    const waitMs = withinMs(goaway.reconnectMinMs, goaway.reconnectMaxMs, this.#environment.random)
    this.#comeBackAt = performance.now() + waitMs
    this.#tell((member) => {
      member.onGoaway(goaway)
    })
    await pause(waitMs, signal)
    for (let nFailures = 1; !signal.aborted && session === this.#session; nFailures += 1) {
      if (await this.#move((endpoints) => this.#dialers(endpoints), signal)) return
      await pause(backoffMs(nFailures, this.#environment.random), signal)
    }
  }

  /** On the second-best carrier: tries the best one again, later and ever more rarely, while the page is looked at. */
  async #upgrade(session: Session, signal: AbortSignal): Promise<void> {
    const { quic } = this.#environment
    while (!signal.aborted && session === this.#session) {
      await pause(Math.max(UPGRADE_AFTER_MS, quic.blockedUntil - Date.now()), signal)
      if (isAborted(signal) || page.document?.visibilityState === 'hidden' || quic.isBlocked(Date.now())) continue
      let nBetter: number | undefined
      const best = (endpoints: Endpoints): Dialer[] => {
        const better = this.#environment.dialers(endpoints).filter(({ carrier }) => carrier === 'webtransport')
        nBetter = better.length
        return better
      }
      if (await this.#move(best, signal)) return
      if (nBetter === 0) return
      // Where not even the question was answered, it is not QUIC that is missing.
      if (nBetter !== undefined && !isAborted(signal)) quic.lost(Date.now())
    }
  }

  /**
   * Make before break: another session is greeted and every document opened on it before the one in
   * use is left, so that nothing is interrupted and nobody seems to have gone. The new session names
   * the old one, whose presence it takes over. False when it came to nothing; the old one then goes on.
   */
  async #move(pick: (endpoints: Endpoints) => readonly Dialer[], signal: AbortSignal): Promise<boolean> {
    const from = this.#session
    if (from === undefined || this.#isMoving) return false
    this.#isMoving = true
    let to: Session | undefined
    const doubts: string[] = []
    let fail: (cause: Error) => void = () => undefined
    const failed = new Promise<never>((_, reject) => {
      fail = reject
    })
    failed.catch(() => undefined)
    try {
      const { session, welcome } = await within(MOVE_DEADLINE_MS, signal, 'move', async (inner) => {
        const dialers = pick(await this.#environment.discover(inner))
        if (dialers.length === 0) throw new Error('no carrier to move to')
        let greet: (welcome: Welcome) => void = () => undefined
        const greeted = new Promise<Welcome>((resolve) => {
          greet = resolve
        })
        const { link, handlers: session } = await this.#dial(dialers, inner, {
          onWelcome: (_, welcome) => {
            greet(welcome)
          },
          onUnfit: (session, why) => {
            if (session !== to) return
            doubts.push(why)
            fail(new Error(why))
          },
        })
        to = session
        session.start(link, this.#hello())
        const welcome = await orAbort(Promise.race([greeted, failed]), inner)
        const opened = Promise.all([...this.#members].map((member) => member.onMoving(session)))
        try {
          await within(MOVE_DOCUMENTS_MS, inner, 'open', (soon) => orAbort(Promise.race([opened, failed]), soon))
        } catch (cause) {
          if (!(cause instanceof DeadlineError)) throw cause
        }
        return { session, welcome }
      })
      if (doubts.length > 0 || isAborted(signal)) throw new Error(doubts[0] ?? 'called off')
      this.#comeBackAt = 0
      this.#take(session, welcome)
      this.#tell((member) => {
        member.onMoved(session)
      })
      from.end(networkFailure('moved to another session'), true)
      return true
    } catch (cause) {
      to?.end(networkFailure(String(cause)))
      this.#tell((member) => {
        member.onMoveFailed()
      })
      return false
    } finally {
      this.#isMoving = false
    }
  }

  /** Probes the server that was just lost. True as soon as it answers, false when it stays away. */
  async #awaitServer(signal: AbortSignal): Promise<boolean> {
    const until = performance.now() + QUICK_RETURN_MS
    while (!signal.aborted && performance.now() < until) {
      if ((await this.#environment.probe(signal)) === 'up') return true
      await this.#sleep(PROBE_GAP_MS * (1 + this.#environment.random()), signal)
    }
    return false
  }

  /** A pause that the network coming back cuts short. */
  async #sleep(ms: number, signal: AbortSignal): Promise<void> {
    if (ms <= 0 || signal.aborted) return
    const nap = new AbortController()
    const stop = (): void => {
      nap.abort()
    }
    signal.addEventListener('abort', stop)
    this.#nap = nap
    await pause(ms, nap.signal)
    this.#nap = undefined
    signal.removeEventListener('abort', stop)
  }

  /** Resolves at once while the page is there, else when it is shown again or the connection ends. */
  #shown(): Promise<void> {
    if (!this.#isAway) return Promise.resolve()
    return new Promise((resolve) => {
      this.#onReturn = resolve
    })
  }

  /**
   * The page is left. Firefox keeps the sessions of a page that it puts away or reloads for another ten
   * seconds, and so would everybody else see whoever left; so the session ends here.
   */
  readonly #onPageHide = (): void => {
    this.#isAway = true
    this.#inCharge?.end(networkFailure('the page was left'), true)
  }

  /** The page is back, from wherever the browser keeps pages for the way back. */
  readonly #onPageShow = (): void => {
    this.#isAway = false
    this.#onReturn()
    this.#nap?.abort()
  }

  readonly #onNetworkChange = (): void => {
    this.#environment.quic.networkChanged()
    this.#wake()
  }

  #wake(): void {
    this.#nap?.abort()
    this.#session?.check()
  }

  readonly #onVisible = (): void => {
    if (page.document?.visibilityState === 'visible') this.#wake()
  }

  #tell(what: (member: Member) => void): void {
    for (const member of [...this.#members]) {
      guarded(() => {
        what(member)
      })
    }
  }
}

/** A call, since the compiler takes a signal that was looked at before an await to be still so. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted
}
