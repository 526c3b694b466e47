import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

import type { KubernetesObject } from '../../src/experiment/kubernetes-objects.js'
import { serveSpdy, type SpdyStream } from './spdy.js'
import { temporaryFile, temporaryFolder } from './temporary-folder.js'

type Json = Readonly<Record<string, unknown>>

export interface ApiRequest {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
}

/** What an intercepted request gets instead of the server's answer. */
export type Intercepted =
  | { readonly status: number; readonly reason: string; readonly message?: string }
  /** The answer never comes. */
  | 'hang'
  /** The server does what it is asked for, and the answer never comes. */
  | 'hang after'

/** How the pods of a workload fare. */
export type PodFate = 'ready' | { readonly waiting: string; readonly message: string; readonly event?: string }

export interface ApiServer {
  /** For the program under test: the kubeconfig has the contexts `lab` (this server), `elsewhere` and no current one. */
  readonly environment: Readonly<Record<string, string>>
  readonly context: string
  /** Every request but discovery, as `GET /api/v1/...`, in order of arrival. */
  readonly requests: readonly string[]
  /** Of those, the ones that change something. */
  readonly writes: () => readonly string[]
  readonly objects: () => readonly KubernetesObject[]
  readonly put: (object: KubernetesObject) => void
  /** Asked for each request; the last one that is set is in force. */
  intercept: (request: ApiRequest) => Intercepted | undefined
  /** What the user of the kubeconfig may not do. */
  forbids: (verb: string, resource: string) => boolean
  fate: (workload: KubernetesObject) => PodFate
  /** Whether sidecars are injected into the pods of a namespace that asks for it. */
  injects: boolean
  /** Resolves when a request has come for which this holds, past or future. */
  readonly arrived: (matches: (request: string) => boolean) => Promise<void>
  /** Ends every open port-forward, as when the pod behind it goes. */
  readonly breakForwards: () => void
  readonly forwards: () => number
}

interface ResourceKind {
  readonly kind: string
  readonly plural: string
  readonly namespaced: boolean
}

const namespaced = (kind: string, plural: string): ResourceKind => ({ kind, plural, namespaced: true })

/** By group and version. */
const RESOURCES: Readonly<Record<string, readonly ResourceKind[]>> = {
  v1: [
    { kind: 'Namespace', plural: 'namespaces', namespaced: false },
    namespaced('Pod', 'pods'),
    namespaced('Service', 'services'),
    namespaced('ServiceAccount', 'serviceaccounts'),
    namespaced('ConfigMap', 'configmaps'),
    namespaced('Event', 'events'),
    namespaced('PersistentVolumeClaim', 'persistentvolumeclaims'),
  ],
  'apps/v1': [
    namespaced('Deployment', 'deployments'),
    namespaced('StatefulSet', 'statefulsets'),
    namespaced('DaemonSet', 'daemonsets'),
  ],
  'authorization.k8s.io/v1': [
    { kind: 'SelfSubjectAccessReview', plural: 'selfsubjectaccessreviews', namespaced: false },
  ],
}

const ISTIO = 'networking.istio.io/v1'
const ISTIO_RESOURCES = [namespaced('VirtualService', 'virtualservices')]

/**
 * An API server with as much of a cluster behind it as the tests need: discovery, objects in memory, pods for workloads,
 * access reviews, and port-forwards to where `forwardTo` listens.
 */
export async function startApiServer(
  t: TestContext,
  options: { readonly istio?: boolean; readonly forwardTo?: () => number } = {},
): Promise<ApiServer> {
  const { istio = true, forwardTo } = options
  const resources: Resources = { ...RESOURCES, ...(istio ? { [ISTIO]: ISTIO_RESOURCES } : {}) }
  const store = new Map<string, KubernetesObject>()
  const requests: string[] = []
  const waiting = new Set<() => void>()
  const sockets = new Set<Socket>()
  const forwards = new Set<Socket>()

  const keyOf = (apiVersion: string, plural: string, namespace: string, name: string): string =>
    `${apiVersion} ${plural} ${namespace} ${name}`
  const kindOf = ({ apiVersion, kind }: KubernetesObject): ResourceKind => {
    const found = resources[apiVersion]?.find((resource) => resource.kind === kind)
    if (found === undefined) throw new Error(`no resource ${apiVersion} ${kind}`)
    return found
  }
  const put = (object: KubernetesObject): KubernetesObject => {
    const { plural, namespaced: inNamespace } = kindOf(object)
    const { namespace = 'default' } = object.metadata
    const metadata = {
      uid: randomUUID(),
      resourceVersion: '1',
      creationTimestamp: new Date().toISOString(),
      ...object.metadata,
      ...(inNamespace ? { namespace } : {}),
    }
    const stored = { ...object, metadata }
    store.set(keyOf(object.apiVersion, plural, inNamespace ? namespace : '', object.metadata.name), stored)
    return stored
  }
  const drop = (object: KubernetesObject): void => {
    const { plural, namespaced: inNamespace } = kindOf(object)
    const { name, namespace = '' } = object.metadata
    store.delete(keyOf(object.apiVersion, plural, inNamespace ? namespace : '', name))
  }

  const http = createServer((request, response) => void answer(request, response))
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  const { port } = http.address() as AddressInfo

  const server: ApiServer = {
    environment: environmentFor(t, `http://127.0.0.1:${port}`),
    context: 'lab',
    requests,
    writes: () => requests.filter((request) => !request.startsWith('GET ')),
    objects: () => [...store.values()],
    put: (object) => void put(object),
    intercept: () => undefined,
    forbids: () => false,
    fate: () => 'ready',
    injects: true,
    arrived: (matches) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (!requests.some(matches)) return
          waiting.delete(look)
          resolve()
        }
        waiting.add(look)
        look()
      }),
    breakForwards: () => {
      for (const socket of forwards) socket.destroy()
    },
    forwards: () => forwards.size,
  }

  /** What the controllers would do. */
  const startPods = (workload: KubernetesObject): void => {
    if (!['Deployment', 'StatefulSet'].includes(workload.kind)) return
    const { name, namespace = 'default' } = workload.metadata
    const { template, replicas = 1 } = workload['spec'] as {
      readonly template: { readonly metadata: Json; readonly spec: { readonly containers: readonly Json[] } }
      readonly replicas?: number
    }
    const home = store.get(keyOf('v1', 'namespaces', '', namespace))
    const injected = server.injects && home?.metadata.labels?.['istio-injection'] === 'enabled'
    const fate = server.fate(workload)
    const ready = fate === 'ready'
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { ...template.metadata, name: `${name}-7c5d-x1`, namespace },
      spec: {
        ...template.spec,
        containers: [...template.spec.containers, ...(injected ? [{ name: 'istio-proxy', image: 'proxyv2' }] : [])],
      },
      status: {
        phase: ready ? 'Running' : 'Pending',
        conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
        containerStatuses: ready
          ? [{ name: 'server', restartCount: 0, state: { running: {} } }]
          : [
              {
                name: 'server',
                image: template.spec.containers[0]?.['image'],
                restartCount: 0,
                state: { waiting: { reason: fate.waiting, message: fate.message } },
              },
            ],
      },
    }
    put(pod)
    if (!ready && fate.event !== undefined) {
      put({
        apiVersion: 'v1',
        kind: 'Event',
        metadata: { name: `${name}.1`, namespace },
        involvedObject: { kind: 'Pod', name: pod.metadata.name, namespace },
        reason: 'Failed',
        message: fate.event,
        lastTimestamp: new Date().toISOString(),
      })
    }
    put({ ...workload, status: { observedGeneration: 1, readyReplicas: ready ? replicas : 0 } })
  }
  const remove = (object: KubernetesObject): void => {
    drop(object)
    const { name, namespace } = object.metadata
    for (const other of [...store.values()]) {
      const inside = object.kind === 'Namespace' && other.metadata.namespace === name
      const podOf = other.kind === 'Pod' && other.metadata.name === `${name}-7c5d-x1` && object.kind !== 'Pod'
      if (inside || (podOf && other.metadata.namespace === namespace)) drop(other)
    }
  }

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { method = 'GET', url = '/' } = request
    const { pathname: path, searchParams: query } = new URL(url, 'http://server')
    const body = await bodyOf(request)
    const reply = (status: number, document: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(document))
    }
    const refuse = (status: number, reason: string, message: string): void =>
      reply(status, {
        kind: 'Status',
        apiVersion: 'v1',
        metadata: {},
        status: 'Failure',
        reason,
        message,
        code: status,
      })
    const discovered = discovery(path, resources)
    if (discovered !== undefined) {
      reply(200, discovered)
      return
    }
    const place = placeOf(path, resources)
    if (place === undefined) {
      refuse(404, 'NotFound', 'the server could not find the requested resource')
      return
    }
    const intercepted = server.intercept({ method, path, query })
    requests.push(`${method} ${path}`)
    for (const look of [...waiting]) look()
    if (intercepted === 'hang') return
    if (typeof intercepted === 'object') {
      refuse(intercepted.status, intercepted.reason, intercepted.message ?? intercepted.reason)
      return
    }
    const done = (status: number, document: unknown): void => {
      if (intercepted !== 'hang after') reply(status, document)
    }
    const { apiVersion, resource, namespace, name } = place
    if (resource.kind === 'SelfSubjectAccessReview') {
      const { verb, resource: what } = (body as { spec: { resourceAttributes: { verb: string; resource: string } } })
        .spec.resourceAttributes
      done(201, { ...body, status: { allowed: !server.forbids(verb, what) } })
      return
    }
    const key = keyOf(apiVersion, resource.plural, namespace ?? '', name ?? '')
    const missing = (): void => refuse(404, 'NotFound', `${resource.plural} "${name ?? ''}" not found`)
    if (method === 'GET' && name === undefined) {
      const items = [...store.values()].filter(
        (object) =>
          object.apiVersion === apiVersion &&
          object.kind === resource.kind &&
          (namespace === undefined || object.metadata.namespace === namespace) &&
          selected(object, query),
      )
      done(200, { apiVersion, kind: `${resource.kind}List`, metadata: { resourceVersion: '1' }, items })
    } else if (method === 'GET') {
      const found = store.get(key)
      if (found === undefined) missing()
      else done(200, found)
    } else if (method === 'POST') {
      const given = body as unknown as KubernetesObject
      const full = keyOf(apiVersion, resource.plural, namespace ?? '', given.metadata.name)
      if (store.has(full)) {
        refuse(409, 'AlreadyExists', `${resource.plural} "${given.metadata.name}" already exists`)
        return
      }
      const inPlace = namespace === undefined ? {} : { namespace }
      const created = put({ ...given, metadata: { ...given.metadata, ...inPlace, generation: 1 } })
      startPods(created)
      done(201, created)
    } else if (method === 'DELETE') {
      const found = store.get(key)
      if (found === undefined) missing()
      else {
        remove(found)
        done(200, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details: { name, uid: 'x' } })
      }
    } else {
      refuse(405, 'MethodNotAllowed', `${method} is not served here`)
    }
  }

  http.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  http.on('upgrade', (request: IncomingMessage, socket: Socket) => {
    const { method = '', url = '/', headers } = request
    requests.push(`${method} ${new URL(url, 'http://server').pathname}`)
    for (const look of [...waiting]) look()
    socket.on('error', () => undefined)
    // The older of the two protocols, which every kubectl falls back to.
    if (headers.upgrade !== 'SPDY/3.1' || forwardTo === undefined) {
      socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
      return
    }
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n' +
        'X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n',
    )
    forwards.add(socket)
    socket.once('close', () => forwards.delete(socket))
    const errors = new Map<string, SpdyStream>()
    serveSpdy(socket, (stream) => {
      const requestId = stream.headers['requestid'] ?? ''
      if (stream.headers['streamtype'] === 'error') errors.set(requestId, stream)
      else pipeTo(forwardTo(), stream, errors.get(requestId))
    })
  })
  t.after(() => {
    for (const socket of [...sockets, ...forwards]) socket.destroy()
    http.close()
  })
  return server
}

/** HOME is the test's own, too: kubectl keeps what it has discovered there. */
function environmentFor(t: TestContext, url: string): Readonly<Record<string, string>> {
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      { name: 'lab', cluster: { server: url } },
      { name: 'nowhere', cluster: { server: 'http://127.0.0.1:1' } },
    ],
    users: [{ name: 'tester', user: {} }],
    contexts: [
      { name: 'lab', context: { cluster: 'lab', user: 'tester' } },
      { name: 'elsewhere', context: { cluster: 'nowhere', user: 'tester' } },
    ],
  }
  return {
    PATH: process.env['PATH'] ?? '',
    HOME: temporaryFolder(t),
    KUBECONFIG: temporaryFile(t, JSON.stringify(config), 'kubeconfig'),
  }
}

async function bodyOf(request: IncomingMessage): Promise<Json> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const body = Buffer.concat(chunks)
  if (body.length === 0) return {}
  return JSON.parse(body.toString()) as Json
}

type Resources = Readonly<Record<string, readonly ResourceKind[]>>

function prefixOf(apiVersion: string): string {
  return apiVersion === 'v1' ? 'api/v1' : `apis/${apiVersion}`
}

/** What there is, in the form that every kubectl understands; undefined for any other path. */
function discovery(path: string, resources: Resources): Json | undefined {
  if (path === '/version') return { major: '1', minor: '32', gitVersion: 'v1.32.4', platform: 'linux/amd64' }
  if (path === '/api') return { kind: 'APIVersions', versions: ['v1'] }
  if (path === '/apis') {
    const groups = Object.keys(resources).filter((apiVersion) => apiVersion !== 'v1')
    return {
      kind: 'APIGroupList',
      apiVersion: 'v1',
      groups: groups.map((groupVersion) => {
        const [name, version] = groupVersion.split('/')
        return { name, versions: [{ groupVersion, version }], preferredVersion: { groupVersion, version } }
      }),
    }
  }
  const versions = Object.keys(resources)
  if (path === '/openapi/v3') {
    const entry = (prefix: string) => [prefix, { serverRelativeURL: `/openapi/v3/${prefix}?hash=1` }] as const
    return { paths: Object.fromEntries(versions.map((apiVersion) => entry(prefixOf(apiVersion)))) }
  }
  for (const apiVersion of versions) {
    const kinds = resources[apiVersion] ?? []
    const prefix = prefixOf(apiVersion)
    if (path === `/${prefix}`) return resourceList(apiVersion, kinds)
    if (path === `/openapi/v3/${prefix}`) return openApi(apiVersion, kinds)
  }
  return undefined
}

function resourceList(groupVersion: string, kinds: readonly ResourceKind[]): Json {
  const verbs = ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch']
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion,
    resources: [
      ...kinds.map(({ kind, plural, namespaced: inNamespace }) => ({
        name: plural,
        singularName: kind.toLowerCase(),
        namespaced: inNamespace,
        kind,
        verbs,
      })),
      ...(groupVersion === 'v1'
        ? [
            {
              name: 'pods/portforward',
              singularName: '',
              namespaced: true,
              kind: 'PodPortForwardOptions',
              verbs: ['create', 'get'],
            },
          ]
        : []),
    ],
  }
}

/** Just enough for kubectl to see that fields are checked by the server. */
function openApi(apiVersion: string, kinds: readonly ResourceKind[]): Json {
  const [group = '', version = ''] = apiVersion === 'v1' ? ['', 'v1'] : apiVersion.split('/')
  return {
    openapi: '3.0.0',
    info: { title: 'test', version: '1' },
    paths: Object.fromEntries(
      kinds.map(({ kind, plural }) => [
        `/${prefixOf(apiVersion)}/${plural}/{name}`,
        {
          patch: {
            parameters: [{ name: 'fieldValidation', in: 'query', schema: { type: 'string' } }],
            responses: {},
            'x-kubernetes-group-version-kind': { group, version, kind },
          },
        },
      ]),
    ),
  }
}

interface Place {
  readonly apiVersion: string
  readonly resource: ResourceKind
  readonly namespace: string | undefined
  readonly name: string | undefined
}

function placeOf(path: string, resources: Resources): Place | undefined {
  for (const [apiVersion, kinds] of Object.entries(resources)) {
    const prefix = `/${prefixOf(apiVersion)}/`
    if (!path.startsWith(prefix)) continue
    const parts = path.slice(prefix.length).split('/').map(decodeURIComponent)
    const inNamespace = parts[0] === 'namespaces' && parts.length > 2
    const [plural, name] = inNamespace ? parts.slice(2) : parts
    const resource = kinds.find((kind) => kind.plural === plural)
    if (resource !== undefined) return { apiVersion, resource, namespace: inNamespace ? parts[1] : undefined, name }
  }
  return undefined
}

/** By labelSelector and fieldSelector, as far as they are of the form a=b,c=d. */
function selected(object: KubernetesObject, query: URLSearchParams): boolean {
  const wanted = (selector: string | null): readonly (readonly [string, string])[] =>
    (selector ?? '')
      .split(',')
      .filter(Boolean)
      .map((part) => part.split('=', 2) as [string, string])
  const at = (path: string): unknown =>
    path.split('.').reduce<unknown>((node, key) => (node as Json | undefined)?.[key], object)
  return (
    wanted(query.get('labelSelector')).every(([label, value]) => object.metadata.labels?.[label] === value) &&
    wanted(query.get('fieldSelector')).every(([field, value]) => at(field) === value)
  )
}

function pipeTo(port: number, stream: SpdyStream, errors: SpdyStream | undefined): void {
  const upstream = connect(port, '127.0.0.1')
  stream.onData = (data) => void upstream.write(data)
  stream.onEnd = () => void upstream.end()
  upstream.on('data', (data: Buffer) => stream.write(data))
  upstream.on('error', (error) => errors?.write(Buffer.from(error.message)))
  upstream.on('close', () => {
    errors?.end()
    stream.end()
  })
}
