import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'

import axios, { type AxiosInstance } from 'axios'

/** Largest answer of an instant query that is read, after decompression. */
export const MAX_ANSWER_BYTES = 8 * 2 ** 20

/**
 * The process's one HTTP client, with nothing automatic: no redirects (they lead to other hosts), no proxies from the
 * environment, bodies as text and bounded in size, and no status turned into an exception.
 */
export function createHttp(): AxiosInstance {
  return axios.create({
    proxy: false,
    maxRedirects: 0,
    maxContentLength: MAX_ANSWER_BYTES,
    maxBodyLength: 2 ** 20,
    responseType: 'text',
    transformResponse: [(body: unknown) => body],
    validateStatus: () => true,
    httpAgent: new HttpAgent({ keepAlive: true, maxSockets: 4 }),
    httpsAgent: new HttpsAgent({ keepAlive: true, maxSockets: 4 }),
  })
}
