/**
 * Where the server's carriers are. The SDK is given one URL, the HTTP base, and asks there.
 */

import { abortReason } from './link/link.js'
import { DeadlineError, within } from './timing.js'

/** The answer of `GET {base}/v1/connect`, checked. */
export interface Endpoints {
  /** Undefined when the server has no WebTransport listener. */
  readonly webtransport: { readonly url: string; readonly certificateHashes: readonly Uint8Array<ArrayBuffer>[] } | undefined
  readonly websocketUrl: string
}

/** The server answered, and no repetition of the question will make it answer otherwise. */
export class DiscoveryRefusedError extends Error {
  constructor(readonly status: number) {
    super(`the server refused the connection (HTTP ${status})`)
    this.name = 'DiscoveryRefusedError'
  }
}

/** A healthy server answers in milliseconds; a dead network should not hold up the next attempt. */
const DISCOVERY_DEADLINE_MS = 5_000

/** Short, since a probe that hangs delays the moment at which the page is back. */
const PROBE_DEADLINE_MS = 1_000

/** Asks the server where its carriers are. */
export async function discover(baseUrl: string, signal: AbortSignal): Promise<Endpoints> {
  return within(DISCOVERY_DEADLINE_MS, signal, 'discovery', async (inner) => {
    const response = await fetch(`${baseUrl}/v1/connect`, {
      signal: inner,
      cache: 'no-store',
      credentials: 'omit',
    })
    if (response.status === 401 || response.status === 403) throw new DiscoveryRefusedError(response.status)
    if (!response.ok) throw new Error(`discovery: HTTP ${response.status}`)
    const body: unknown = await response.json()
    if (inner.aborted) throw abortReason(inner)
    return parseEndpoints(baseUrl, body)
  })
}

/** `up`: it answered. `down`: nobody listens there, or a proxy says so. `silent`: no answer in time. */
export type Health = 'up' | 'down' | 'silent'

/** Asks whether the server is there. Never rejects. */
export async function probe(baseUrl: string, signal: AbortSignal): Promise<Health> {
  try {
    return await within(PROBE_DEADLINE_MS, signal, 'health probe', async (inner) => {
      // An opaque answer is answer enough: a server on another origin need not grant us its text.
      const response = await fetch(`${baseUrl}/healthz`, {
        signal: inner,
        cache: 'no-store',
        credentials: 'omit',
        mode: 'no-cors',
      })
      return response.ok || response.type === 'opaque' ? 'up' : 'down'
    })
  } catch (cause) {
    return cause instanceof DeadlineError ? 'silent' : 'down'
  }
}

/** Checks the answer of the server. Exported for its test. */
export function parseEndpoints(baseUrl: string, body: unknown): Endpoints {
  const fields = isRecord(body) ? body : {}
  const websocket = typeof fields['websocket'] === 'string' ? fields['websocket'] : '/ws'
  const offered = fields['webtransport']
  let webtransport: Endpoints['webtransport']
  if (isRecord(offered) && typeof offered['url'] === 'string') {
    const hashes: unknown = offered['certificateHashes']
    webtransport = {
      url: offered['url'],
      certificateHashes: Array.isArray(hashes) ? hashes.filter((hash) => typeof hash === 'string').map(fromBase64) : [],
    }
  }
  return { webtransport, websocketUrl: websocketUrl(baseUrl, websocket) }
}

function websocketUrl(baseUrl: string, path: string): string {
  if (/^wss?:/.test(path)) return path
  const url = new URL(`${baseUrl}${path.startsWith('/') ? '' : '/'}${path}`)
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
  return url.href
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text)
  const bytes = new Uint8Array(binary.length)
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i)
  return bytes
}
