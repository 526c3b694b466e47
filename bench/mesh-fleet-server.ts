/*
 * The other side of bench/mesh-poll.ts and bench/mesh-rules.ts, as a process of its own so that its CPU is nobody else's: sidecars of a synthetic mesh
 * for Prometheus to scrape, and answers of Prometheus for any number of edges.
 *
 *   GET /pods/K                      the metrics of replica K of every workload
 *   GET /replay/N/api/v1/query       an answer to the mesh query with N edges
 *
 *   node mesh-fleet-server.js EDGES
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

import { ISTIO_BUCKETS_MS } from '../src/core/istio-buckets.js'
import { seededRandom } from '../src/testbed/random.js'
import { answers, fleetEdges } from './mesh-fleet.js'

const DIGITS = 12
const PLACEHOLDER = '0'.repeat(DIGITS)

const edges = fleetEdges(Number(process.argv[2]))
const startMs = Date.now()

/** One replica's counters as a text whose numbers are written over, so that a scrape costs next to nothing. */
function createReplica(seed: number): () => Buffer {
  const random = seededRandom(seed)
  const lines = ['# TYPE istio_request_duration_milliseconds histogram\n']
  const perSecond: number[] = []
  for (const { source, destination } of edges) {
    const labels = [
      'reporter="source"',
      `source_workload="${source}"`,
      `source_app="${source}"`,
      'source_workload_namespace="shop"',
      `destination_workload="${destination}"`,
      `destination_app="${destination}"`,
      `destination_service="${destination}.shop.svc.cluster.local"`,
      `destination_service_name="${destination}"`,
      'destination_service_namespace="shop"',
      'request_protocol="http"',
      'response_code="200"',
    ].join(',')
    const rate = 5 + 10 * random()
    const median = 2 + 40 * random()
    const series = (name: string, more: string, value: number): void => {
      lines.push(`istio_request_duration_milliseconds_${name}{${labels}${more}} ${PLACEHOLDER}\n`)
      perSecond.push(value)
    }
    for (const bound of ISTIO_BUCKETS_MS) {
      series('bucket', `,le="${bound}"`, rate / (1 + Math.exp(-3 * Math.log(bound / median))))
    }
    series('bucket', ',le="+Inf"', rate)
    series('sum', '', rate * median)
    series('count', '', rate)
  }
  const body = Buffer.from(lines.join(''))
  const places: number[] = []
  for (let at = body.indexOf(`} ${PLACEHOLDER}`); at !== -1; at = body.indexOf(`} ${PLACEHOLDER}`, at + 1)) {
    places.push(at + 2)
  }
  return () => {
    const seconds = (Date.now() - startMs) / 1_000 + 100
    places.forEach((place, i) => {
      let value = Math.floor(perSecond[i]! * seconds)
      for (let digit = place + DIGITS - 1; digit >= place; digit--) {
        body[digit] = 48 + (value % 10)
        value = Math.floor(value / 10)
      }
    })
    // A copy: the next scrape writes over this one.
    return Buffer.from(body)
  }
}

const replicas = new Map<string, () => Buffer>()
const replays = new Map<number, (timeSeconds: number) => string>()

const server = createServer((request, response) => {
  const path = (request.url ?? '').split('?', 1)[0] ?? ''
  const [, kind = '', name = ''] = path.split('/')
  if (kind === 'pods') {
    const replica = replicas.get(name) ?? createReplica(Number(name) + 1)
    replicas.set(name, replica)
    response.setHeader('content-type', 'text/plain; version=0.0.4')
    response.end(replica())
    return
  }
  const count = Number(name)
  const replay = replays.get(count) ?? answers(fleetEdges(count))
  replays.set(count, replay)
  response.setHeader('content-type', 'application/json')
  response.end(replay(Date.now() / 1_000))
})
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ msg: 'listening', url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }))
})
