/**
 * What is known of QUIC on this network. A network that blocks it costs every visit the head start
 * that WebTransport gets, so it is remembered beyond the page; and tried again later, since people move.
 * Pure: the caller brings the clock and the place to keep it in.
 */

/** Where the memory is kept between pages. */
export interface Keep {
  read(): string | null
  write(value: string): void
}

/** The first pause before QUIC is tried again; it doubles with every further failure. */
const FIRST_PAUSE_MS = 5 * 60_000

/** No pause is longer. */
const PAUSE_MS_MAX = 60 * 60_000

/** One server's memory, in wall-clock milliseconds, which are the same in every page. */
export class QuicMemory {
  readonly #keep: Keep
  #worked = false
  #nFailures = 0
  #blockedUntil = 0

  constructor(keep: Keep) {
    this.#keep = keep
    const [nFailures, until] = (keep.read() ?? '').split(' ').map(Number)
    if (Number.isSafeInteger(nFailures) && Number.isSafeInteger(until)) {
      this.#nFailures = nFailures ?? 0
      this.#blockedUntil = until ?? 0
    }
  }

  /** When QUIC may be tried again; in the past when nothing speaks against it. */
  get blockedUntil(): number {
    return this.#blockedUntil
  }

  /** True while QUIC should not be tried. A clock that was set back does not make that for ever. */
  isBlocked(now: number): boolean {
    return this.#blockedUntil > now && this.#blockedUntil - now <= PAUSE_MS_MAX
  }

  /** QUIC works here. */
  worked(): void {
    this.#worked = true
    if (this.#nFailures > 0 || this.#blockedUntil > 0) this.#set(0, 0)
  }

  /**
   * QUIC lost where WebSocket got through in the same moment. Where it has worked, that says
   * something about the server and not about the network.
   */
  lost(now: number): void {
    if (this.#worked) return
    const pauseMs = Math.min(PAUSE_MS_MAX, FIRST_PAUSE_MS * 2 ** this.#nFailures)
    this.#set(Math.min(this.#nFailures + 1, 10), now + pauseMs)
  }

  /** Another network, perhaps: nothing is known of it. */
  networkChanged(): void {
    this.#worked = false
    if (this.#nFailures > 0 || this.#blockedUntil > 0) this.#set(0, 0)
  }

  #set(nFailures: number, blockedUntil: number): void {
    this.#nFailures = nFailures
    this.#blockedUntil = blockedUntil
    this.#keep.write(`${nFailures} ${blockedUntil}`)
  }
}

/** For runtimes without QUIC, whose storage need not be asked for. */
export const NO_KEEP: Keep = { read: () => null, write: () => undefined }

/** Keeps it in the page's local storage, where there is one and it lets us. */
export function localKeep(baseUrl: string): Keep {
  const key = `syncline.quic ${baseUrl}`
  return {
    read: () => {
      try {
        return globalThis.localStorage.getItem(key)
      } catch {
        return null
      }
    },
    write: (value) => {
      try {
        globalThis.localStorage.setItem(key, value)
      } catch {
        // No storage here, or none for us: the memory lasts as long as the page.
      }
    },
  }
}
