/** What the page says about the connection: status, carrier, round trip, and whether it is saved. */

import type { Carrier, SaveState, Status, SynclineProvider } from '@syncline/client'
import { byId } from './dom.js'

const CARRIER_NAMES: Record<Carrier, string> = {
  webtransport: 'WebTransport',
  websocket: 'WebSocket',
  memory: 'Memory',
}

const STATUS_TEXTS: Record<Status, string> = {
  connecting: 'Connecting',
  connected: 'Connected',
  disconnected: 'Reconnecting',
  replaced: 'Set aside',
  denied: 'No access',
  closed: 'Disconnected',
}

/** Keeps the footer and the save light true. */
export function showWire(provider: SynclineProvider): void {
  const status = byId('status')
  const carrier = byId('carrier')
  const rtt = byId('rtt')
  const light = byId('save-light')
  const saveText = byId('save-text')

  const draw = (): void => {
    status.dataset['status'] = provider.status
    status.textContent = STATUS_TEXTS[provider.status]
    carrier.textContent = provider.carrier === null ? 'Not connected' : CARRIER_NAMES[provider.carrier]
    carrier.dataset['carrier'] = provider.carrier ?? 'none'
    rtt.textContent = provider.rtt === null ? '' : roundTrip(provider.rtt)
    const { state, text } = saveLight(provider)
    light.dataset['state'] = state
    light.dataset['pending'] = String(provider.pending)
    saveText.textContent = text
  }

  provider.on('status', draw)
  provider.on('carrier', draw)
  provider.on('rtt', draw)
  provider.on('saved', draw)
  provider.on('rejected', draw)
  draw()
}

/** What the light shows: where the edits are, or that none of them goes anywhere any more. */
function saveLight({ status, frozen, pending, saveState }: SynclineProvider): { state: string; text: string } {
  const isOver = status === 'denied' || status === 'closed'
  if (isOver && pending === 0) return { state: 'closed', text: 'Not open' }
  if (frozen || status === 'replaced' || isOver) {
    return { state: 'frozen', text: pending === 0 ? 'Set aside' : `${saved('local', pending)}, not sent` }
  }
  return { state: saveState, text: saved(saveState, pending) }
}

function saved(state: SaveState, pending: number): string {
  switch (state) {
    case 'local':
      return pending === 1 ? '1 change only here' : `${pending} changes only here`
    case 'saving':
      return 'Saving'
    case 'saved':
      return 'Saved'
  }
}

function roundTrip(ms: number): string {
  return ms < 10 ? `${Math.max(ms, 0.1).toFixed(1)} ms` : `${Math.round(ms)} ms`
}
