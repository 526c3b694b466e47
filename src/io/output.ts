import { once } from 'node:events'
import type { Writable } from 'node:stream'

import type { Output } from './runtime.js'

/** @param stream - when its reader goes away (EPIPE), the next write rejects */
export function streamOutput(stream: Writable & { readonly isTTY?: boolean }): Output {
  let broken: Error | undefined
  stream.on('error', (error) => {
    broken = error
  })
  return {
    isTerminal: stream.isTTY === true,
    write: async (text) => {
      if (broken !== undefined) throw broken
      if (!stream.write(text)) await once(stream, 'drain')
    },
  }
}
