import assert from 'node:assert/strict'
import { test } from 'node:test'

import { withField } from './helpers/kubernetes-schemas.js'
import { brokenControls, CONTROLS, type Pod } from './helpers/pod-security.js'

const CONTAINER = {
  name: 'it',
  ports: [{ containerPort: 8080 }],
  livenessProbe: { httpGet: { path: '/healthz', port: 8080 } },
  securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
}

/** Keeps every control, and has one container of each kind: each is mutated. */
const POD: Pod = {
  annotations: { 'prometheus.io/scrape': 'true' },
  spec: {
    securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [CONTAINER],
    initContainers: [CONTAINER],
    ephemeralContainers: [CONTAINER],
    volumes: [{ name: 'training', configMap: { name: 'training' } }],
  },
}

interface Violation {
  readonly control: string
  /** From the pod's spec, or with `each` from each of its containers in turn. */
  readonly path: readonly string[]
  readonly each?: true
  readonly value: unknown
  /** What else it breaks, since one is part of the other. */
  readonly also?: readonly string[]
}

const VIOLATIONS: readonly Violation[] = [
  { control: 'HostProcess', path: ['securityContext', 'windowsOptions', 'hostProcess'], value: true },
  { control: 'HostProcess', each: true, path: ['securityContext', 'windowsOptions', 'hostProcess'], value: true },
  ...['hostNetwork', 'hostPID', 'hostIPC'].map((field) => ({ control: 'Host Namespaces', path: [field], value: true })),
  { control: 'Privileged Containers', each: true, path: ['securityContext', 'privileged'], value: true },
  {
    control: 'Capabilities (baseline)',
    each: true,
    path: ['securityContext', 'capabilities', 'add'],
    value: ['SYS_ADMIN'],
    also: ['Capabilities'],
  },
  {
    control: 'HostPath Volumes',
    path: ['volumes'],
    value: [{ name: 'r', hostPath: { path: '/' } }],
    also: ['Volume Types'],
  },
  { control: 'Host Ports', each: true, path: ['ports', '0', 'hostPort'], value: 8080 },
  ...['livenessProbe', 'readinessProbe', 'startupProbe'].flatMap((probe) =>
    ['httpGet', 'tcpSocket'].map((kind) => ({
      control: 'Host Probes / Lifecycle Hooks',
      each: true as const,
      path: [probe, kind, 'host'],
      value: '169.254.169.254',
    })),
  ),
  ...['postStart', 'preStop'].flatMap((hook) =>
    ['httpGet', 'tcpSocket'].map((kind) => ({
      control: 'Host Probes / Lifecycle Hooks',
      each: true as const,
      path: ['lifecycle', hook, kind, 'host'],
      value: 'example.com',
    })),
  ),
  { control: 'AppArmor', path: ['securityContext', 'appArmorProfile', 'type'], value: 'Unconfined' },
  { control: 'AppArmor', each: true, path: ['securityContext', 'appArmorProfile', 'type'], value: 'Unconfined' },
  { control: 'SELinux', path: ['securityContext', 'seLinuxOptions', 'type'], value: 'spc_t' },
  { control: 'SELinux', each: true, path: ['securityContext', 'seLinuxOptions', 'user'], value: 'system_u' },
  { control: 'SELinux', each: true, path: ['securityContext', 'seLinuxOptions', 'role'], value: 'system_r' },
  { control: '/proc Mount Type', each: true, path: ['securityContext', 'procMount'], value: 'Unmasked' },
  {
    control: 'Seccomp (baseline)',
    path: ['securityContext', 'seccompProfile', 'type'],
    value: 'Unconfined',
    also: ['Seccomp'],
  },
  {
    control: 'Seccomp (baseline)',
    each: true,
    path: ['securityContext', 'seccompProfile', 'type'],
    value: 'Unconfined',
    also: ['Seccomp'],
  },
  { control: 'Sysctls', path: ['securityContext', 'sysctls'], value: [{ name: 'kernel.msgmax', value: '1' }] },
  { control: 'Volume Types', path: ['volumes'], value: [{ name: 'share', nfs: { server: 'a', path: '/' } }] },
  { control: 'Privilege Escalation', each: true, path: ['securityContext', 'allowPrivilegeEscalation'], value: true },
  {
    control: 'Privilege Escalation',
    each: true,
    path: ['securityContext', 'allowPrivilegeEscalation'],
    value: undefined,
  },
  { control: 'Running as Non-root', path: ['securityContext', 'runAsNonRoot'], value: undefined },
  { control: 'Running as Non-root', each: true, path: ['securityContext', 'runAsNonRoot'], value: false },
  { control: 'Running as Non-root user', path: ['securityContext', 'runAsUser'], value: 0 },
  { control: 'Running as Non-root user', each: true, path: ['securityContext', 'runAsUser'], value: 0 },
  { control: 'Seccomp', path: ['securityContext', 'seccompProfile'], value: undefined },
  { control: 'Capabilities', each: true, path: ['securityContext', 'capabilities', 'drop'], value: ['NET_RAW'] },
  { control: 'Capabilities', each: true, path: ['securityContext', 'capabilities', 'add'], value: ['CHOWN'] },
]

test('pod security: a pod that keeps the restricted profile breaks no control', () => {
  assert.deepEqual(brokenControls(POD), [])
})

for (const { control, path, each, value, also = [] } of VIOLATIONS) {
  const where = `${each === true ? 'container ' : ''}${path.join('.')}`
  test(`pod security: "${control}" is broken by ${where}: ${value === undefined ? 'nothing' : JSON.stringify(value)}`, () => {
    const holders =
      each === true ? ['containers', 'initContainers', 'ephemeralContainers'].map((kind) => [kind, '0']) : [[]]
    for (const holder of holders) {
      const broken = brokenControls(withField(POD, ['spec', ...holder, ...path], value))
      assert.deepEqual(broken.toSorted(), [control, ...also].sort(), holder[0])
    }
  })
}

test('pod security: "AppArmor" is broken by its older annotation, too', () => {
  const annotation = 'container.apparmor.security.beta.kubernetes.io/it'
  assert.deepEqual(brokenControls({ ...POD, annotations: { [annotation]: 'unconfined' } }), ['AppArmor'])
  assert.deepEqual(brokenControls({ ...POD, annotations: { [annotation]: 'runtime/default' } }), [])
})

test('pod security: what the profile allows is no violation', () => {
  for (const [path, value] of [
    [['securityContext', 'seccompProfile', 'type'], 'Localhost'],
    [['securityContext', 'sysctls'], [{ name: 'net.ipv4.tcp_syncookies', value: '1' }]],
    [['containers', '0', 'securityContext', 'capabilities', 'add'], ['NET_BIND_SERVICE']],
    [['containers', '0', 'securityContext', 'runAsUser'], 65532],
    [['containers', '0', 'livenessProbe', 'httpGet', 'host'], ''],
    [['volumes'], [{ name: 'tmp', emptyDir: {} }]],
  ] as const) {
    assert.deepEqual(brokenControls(withField(POD, ['spec', ...path], value)), [], path.join('.'))
  }
})

test('pod security: every control of the standard has a violation here', () => {
  const violated = new Set(VIOLATIONS.map(({ control }) => control))
  assert.deepEqual([...violated].sort(), CONTROLS.map(({ name }) => name).sort())
})
