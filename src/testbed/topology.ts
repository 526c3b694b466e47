import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import { UsageError } from '../core/errors.js'
import {
  checkKeys,
  entriesOf,
  integerOf,
  itemsOf,
  numberOf,
  readYaml,
  textOf,
  type YamlField,
} from '../io/yaml-field.js'

export const BUILT_IN_TOPOLOGIES = ['online-boutique', 'sock-shop'] as const

/** A lognormal distribution: half of all draws are below `median`; `sigma` is the deviation of their logarithm. */
export interface Distribution {
  readonly median: number
  readonly sigma: number
}

export interface Call {
  readonly service: string
  readonly endpoint: string
  /** How often, one after the other. */
  readonly times: number
  /** Chance that it is made at all, in (0, 1]. */
  readonly probability: number
  /** The caller answers 200 even when this call fails. */
  readonly optional: boolean
}

/** Calls that are made at the same time. */
export type Step = readonly Call[]

export interface Service {
  readonly name: string
  /** How many requests are worked on at a time; the others queue. A worker is not held while its service waits for another. */
  readonly concurrency: number
  /** How many requests may wait before the next one is answered 503. */
  readonly queueLimit: number
  readonly serviceTimeMs: Distribution
  /** What each endpoint calls, step after step, once its own work is done. */
  readonly endpoints: ReadonlyMap<string, readonly Step[]>
}

/** Something that a user does: requests of the entry service, one after the other. */
export interface Task {
  readonly name: string
  readonly weight: number
  readonly requests: readonly string[]
}

export interface Range {
  readonly min: number
  readonly max: number
}

export interface Topology {
  readonly name: string
  readonly namespace: string
  /** The service that users talk to. */
  readonly entry: string
  readonly services: readonly Service[]
  /** What a user requests when it arrives. */
  readonly onStart: readonly string[]
  readonly tasks: readonly Task[]
  /** How long a user waits between two tasks, drawn uniformly. */
  readonly waitSeconds: Range
}

/** The endpoints of each service, known before any call is read. */
type Known = Map<string, readonly string[]>

/** A name that can be part of a host name and of a path. */
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i

/**
 * @param nameOrFile - a built-in name, or the path of a YAML file
 * @throws {UsageError} naming the file, the line and the field
 */
export function loadTopology(nameOrFile: string, what: string): Topology {
  const builtIn = BUILT_IN_TOPOLOGIES.some((name) => name === nameOrFile)
  if (!builtIn && !/\.ya?ml$/.test(nameOrFile)) {
    throw new UsageError(
      `${what} must be one of ${BUILT_IN_TOPOLOGIES.join(', ')} or a .yaml file, got ${JSON.stringify(nameOrFile)}`,
    )
  }
  // Compiled, this file is dist/src/testbed/topology.js in the package.
  const path = builtIn ? fileURLToPath(new URL(`../../../topologies/${nameOrFile}.yaml`, import.meta.url)) : nameOrFile
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new UsageError(`${what} must be a topology that can be read: ${(error as Error).message}`, { cause: error })
  }
  return parseTopology(text, path)
}

/** @throws {UsageError} naming the file, the line and the field */
export function parseTopology(text: string, file: string): Topology {
  const [root, second] = readYaml(text, file)
  if (root === undefined) throw new UsageError(`${file} must be a topology, got an empty file`)
  second?.fail('absent: a topology is one document')
  checkKeys(root, ['name', 'namespace', 'entry', 'services', 'onStart', 'tasks', 'waitSeconds'])
  const fields = itemsOf(root.at('services'))
  const known: Known = new Map()
  for (const field of fields) {
    const name = nameOf(field.at('name'))
    if (known.has(name)) field.at('name').fail('the name of no other service')
    known.set(
      name,
      entriesOf(field.at('endpoints')).map(([endpoint]) => endpoint),
    )
  }
  const services = fields.map((field) => serviceOf(field, known))
  checkCycles(fields, services)
  const entry = services.find(({ name }) => name === textOf(root.at('entry')))
  if (entry === undefined) return root.at('entry').fail('the name of a service')
  const requestsOf = (field: YamlField): string[] =>
    itemsOf(field).map((item) =>
      entry.endpoints.has(textOf(item)) ? textOf(item) : item.fail(`an endpoint of ${entry.name}`),
    )
  const tasks = entriesOf(root.at('tasks')).map(([name, field]) => {
    checkKeys(field, ['weight', 'requests'])
    return {
      name,
      weight: numberOf(field.at('weight'), { min: 0.001, max: 1e6 }),
      requests: requestsOf(field.at('requests')),
    }
  })
  if (tasks.length === 0) root.at('tasks').fail('at least one task')
  return {
    name: nameOf(root.at('name')),
    namespace: nameOf(root.at('namespace')),
    entry: entry.name,
    services,
    onStart: requestsOf(root.at('onStart')),
    tasks,
    waitSeconds: rangeOf(root.at('waitSeconds')),
  }
}

function nameOf(field: YamlField): string {
  return NAME.test(textOf(field)) ? textOf(field) : field.fail('letters, digits and dashes, at most 63')
}

function rangeOf(field: YamlField): Range {
  checkKeys(field, ['min', 'max'])
  const min = numberOf(field.at('min'), { min: 0, max: 86_400 })
  return { min, max: numberOf(field.at('max'), { min, max: 86_400 }) }
}

function serviceOf(field: YamlField, known: Known): Service {
  checkKeys(field, ['name', 'concurrency', 'queueLimit', 'serviceTimeMs', 'endpoints'])
  const time = field.at('serviceTimeMs')
  checkKeys(time, ['median', 'sigma'])
  const endpoints = entriesOf(field.at('endpoints'))
  if (endpoints.length === 0) field.at('endpoints').fail('at least one endpoint')
  return {
    name: nameOf(field.at('name')),
    concurrency: integerOf(field.at('concurrency'), { min: 1, max: 10_000 }),
    queueLimit: integerOf(field.at('queueLimit'), { min: 0, max: 1_000_000 }),
    serviceTimeMs: {
      median: numberOf(time.at('median'), { min: 0, max: 60_000 }),
      sigma: numberOf(time.at('sigma'), { min: 0, max: 3 }),
    },
    endpoints: new Map(
      endpoints.map(([name, steps]) => {
        if (!NAME.test(name)) steps.fail('named by letters, digits and dashes')
        return [name, itemsOf(steps).map((step) => stepOf(step, known))]
      }),
    ),
  }
}

function stepOf(field: YamlField, known: Known): Step {
  if (field.at('parallel').value === undefined) return [callOf(field, known)]
  checkKeys(field, ['parallel'])
  return itemsOf(field.at('parallel')).map((call) => callOf(call, known))
}

function callOf(field: YamlField, known: Known): Call {
  checkKeys(field, ['call', 'times', 'probability', 'optional'])
  const [service, endpoint, rest] = textOf(field.at('call')).split('/')
  if (service === undefined || endpoint === undefined || rest !== undefined) {
    return field.at('call').fail('of the form service/endpoint')
  }
  const endpoints = known.get(service)
  if (endpoints === undefined) field.at('call').fail(`a call of one of ${[...known.keys()].join(', ')}`)
  else if (!endpoints.includes(endpoint)) {
    field.at('call').fail(`a call of one of ${service}'s endpoints ${endpoints.join(', ')}`)
  }
  const times = field.at('times')
  const probability = field.at('probability')
  const optional = field.at('optional')
  if (optional.value !== undefined && typeof optional.value !== 'boolean') optional.fail('true or false')
  return {
    service,
    endpoint,
    times: times.value === undefined ? 1 : integerOf(times, { min: 1, max: 1_000 }),
    probability: probability.value === undefined ? 1 : numberOf(probability, { min: 0.000_001, max: 1 }),
    optional: optional.value === true,
  }
}

/** No endpoint can call itself, not even through others: a request would never end. */
function checkCycles(fields: readonly YamlField[], services: readonly Service[]): void {
  const byName = new Map(services.map((service) => [service.name, service]))
  services.forEach(({ name, endpoints }, i) => {
    for (const endpoint of endpoints.keys()) {
      const cycle = findCycle(byName, `${name}/${endpoint}`, [])
      if (cycle !== null)
        fields[i]
          ?.at('endpoints')
          .at(endpoint)
          .fail(`free of cycles (${cycle.join(' -> ')})`)
    }
  })
}

function findCycle(
  byName: ReadonlyMap<string, Service>,
  node: string,
  trail: readonly string[],
): readonly string[] | null {
  const seen = trail.indexOf(node)
  if (seen !== -1) return [...trail.slice(seen), node]
  const [service = '', endpoint = ''] = node.split('/')
  for (const call of byName.get(service)?.endpoints.get(endpoint)?.flat() ?? []) {
    const cycle = findCycle(byName, `${call.service}/${call.endpoint}`, [...trail, node])
    if (cycle !== null) return cycle
  }
  return null
}
