/** A page of an application's own: served at `http://localhost`, on another origin than the server that it uses. */

import type { Server as HttpServer } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { bundle } from './bundle.js'

/** Serves one empty page with one module in it. */
export class PageServer {
  readonly #server: HttpServer
  readonly url: string

  private constructor(server: HttpServer) {
    this.#server = server
    this.url = `http://localhost:${(server.address() as AddressInfo).port}/`
  }

  /** Bundles the module as an application would. */
  static async start(code: string): Promise<PageServer> {
    const script = await bundle(code)
    const server = createServer((request, response) => {
      const isScript = request.url === '/script.js'
      response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html; charset=utf-8')
      response.end(isScript ? script : '<!doctype html><link rel="icon" href="data:,"><script type="module" src="/script.js"></script>')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return new PageServer(server)
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
