import { once } from 'node:events'
import type { Writable } from 'node:stream'

import type { Output } from './runtime.js'

export function streamOutput(stream: Writable & { readonly isTTY?: boolean }): Output {
  return {
    isTerminal: stream.isTTY === true,
    write: async (text) => {
      if (!stream.write(text)) await once(stream, 'drain')
    },
  }
}
