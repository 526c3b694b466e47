/**
 * The Pod Security Standard "restricted", control for control as kubernetes.io lists it ("baseline" included), by Kubernetes 1.34: a pod
 * that breaks none is let in by a namespace that enforces it.
 */

type Json = Readonly<Record<string, unknown>>

/** The fields of a pod that decide, as loose as YAML is: a mutation may put anything there. */
export interface Pod {
  readonly annotations: Readonly<Record<string, string>>
  readonly spec: Json
}

export interface Control {
  /** As the standard calls it. */
  readonly name: string
  readonly level: 'baseline' | 'restricted'
  readonly holds: (pod: Pod) => boolean
}

const at = (object: unknown, ...path: readonly string[]): unknown =>
  path.reduce<unknown>((node, key) => (node as Json | undefined)?.[key], object)
const list = (value: unknown): readonly Json[] => (value ?? []) as readonly Json[]
const texts = (value: unknown): readonly string[] => (value ?? []) as readonly string[]

/** Of every kind: each can do what the others can. */
const containersOf = ({ spec }: Pod): readonly Json[] =>
  ['containers', 'initContainers', 'ephemeralContainers'].flatMap((field) => list(spec[field]))

/** The values of a field of the security context, the pod's and each container's. */
const everywhere = (pod: Pod, ...path: readonly string[]): readonly unknown[] =>
  [pod.spec, ...containersOf(pod)].map((holder) => at(holder, 'securityContext', ...path))

const eachContainer = (pod: Pod, holds: (container: Json) => boolean): boolean => containersOf(pod).every(holds)
const unset = (value: unknown): boolean => value === undefined || value === null
const oneOf =
  (...allowed: readonly unknown[]) =>
  (value: unknown): boolean =>
    unset(value) || allowed.includes(value)

/** What a container says itself goes before what its pod says. */
const setForEach = (pod: Pod, right: (value: unknown) => boolean, ...path: readonly string[]): boolean => {
  const ofPod = at(pod.spec, 'securityContext', ...path)
  return eachContainer(pod, (container) => {
    const own = at(container, 'securityContext', ...path)
    return right(unset(own) ? ofPod : own)
  })
}

const SYSCTLS = [
  'kernel.shm_rmid_forced',
  'net.ipv4.ip_local_port_range',
  'net.ipv4.ip_local_reserved_ports',
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.ping_group_range',
  'net.ipv4.tcp_fin_timeout',
  'net.ipv4.tcp_keepalive_intvl',
  'net.ipv4.tcp_keepalive_probes',
  'net.ipv4.tcp_keepalive_time',
  'net.ipv4.tcp_rmem',
  'net.ipv4.tcp_syncookies',
  'net.ipv4.tcp_wmem',
]
const SELINUX_TYPES = ['', 'container_t', 'container_init_t', 'container_kvm_t', 'container_engine_t']
const VOLUMES = [
  ...['configMap', 'csi', 'downwardAPI', 'emptyDir', 'ephemeral', 'persistentVolumeClaim', 'projected', 'secret'],
]
const BASELINE_CAPABILITIES = [
  ...['AUDIT_WRITE', 'CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL', 'MKNOD', 'NET_BIND_SERVICE'],
  ...['SETFCAP', 'SETGID', 'SETPCAP', 'SETUID', 'SYS_CHROOT'],
]
const APPARMOR = 'container.apparmor.security.beta.kubernetes.io/'

export const CONTROLS: readonly Control[] = [
  {
    name: 'HostProcess',
    level: 'baseline',
    holds: (pod) => everywhere(pod, 'windowsOptions', 'hostProcess').every(oneOf(false)),
  },
  {
    name: 'Host Namespaces',
    level: 'baseline',
    holds: ({ spec }) => ['hostNetwork', 'hostPID', 'hostIPC'].every((field) => oneOf(false)(spec[field])),
  },
  {
    name: 'Privileged Containers',
    level: 'baseline',
    holds: (pod) => eachContainer(pod, (container) => oneOf(false)(at(container, 'securityContext', 'privileged'))),
  },
  {
    name: 'Capabilities (baseline)',
    level: 'baseline',
    holds: (pod) =>
      eachContainer(pod, (container) =>
        texts(at(container, 'securityContext', 'capabilities', 'add')).every((name) =>
          BASELINE_CAPABILITIES.includes(name),
        ),
      ),
  },
  {
    name: 'HostPath Volumes',
    level: 'baseline',
    holds: ({ spec }) => list(spec['volumes']).every((volume) => unset(volume['hostPath'])),
  },
  {
    name: 'Host Ports',
    level: 'baseline',
    holds: (pod) => eachContainer(pod, ({ ports }) => list(ports).every(({ hostPort }) => oneOf(0)(hostPort))),
  },
  {
    name: 'Host Probes / Lifecycle Hooks',
    level: 'baseline',
    holds: (pod) =>
      eachContainer(pod, ({ livenessProbe, readinessProbe, startupProbe, lifecycle }) =>
        [livenessProbe, readinessProbe, startupProbe, at(lifecycle, 'postStart'), at(lifecycle, 'preStop')]
          .flatMap((handler) => [at(handler, 'httpGet', 'host'), at(handler, 'tcpSocket', 'host')])
          .every(oneOf('')),
      ),
  },
  {
    name: 'AppArmor',
    level: 'baseline',
    holds: (pod) =>
      everywhere(pod, 'appArmorProfile', 'type').every(oneOf('RuntimeDefault', 'Localhost')) &&
      Object.entries(pod.annotations).every(
        ([key, value]) => !key.startsWith(APPARMOR) || /^(runtime\/default|localhost\/.*|)$/.test(value),
      ),
  },
  {
    name: 'SELinux',
    level: 'baseline',
    holds: (pod) =>
      everywhere(pod, 'seLinuxOptions', 'type').every(oneOf(...SELINUX_TYPES)) &&
      ['user', 'role'].every((field) => everywhere(pod, 'seLinuxOptions', field).every(oneOf(''))),
  },
  {
    name: '/proc Mount Type',
    level: 'baseline',
    holds: (pod) => eachContainer(pod, (container) => oneOf('Default')(at(container, 'securityContext', 'procMount'))),
  },
  {
    name: 'Seccomp (baseline)',
    level: 'baseline',
    holds: (pod) => everywhere(pod, 'seccompProfile', 'type').every(oneOf('RuntimeDefault', 'Localhost')),
  },
  {
    name: 'Sysctls',
    level: 'baseline',
    holds: ({ spec }) =>
      list(at(spec, 'securityContext', 'sysctls')).every(({ name }) => SYSCTLS.includes(name as string)),
  },
  {
    name: 'Volume Types',
    level: 'restricted',
    holds: ({ spec }) =>
      list(spec['volumes']).every((volume) =>
        Object.keys(volume).every((kind) => kind === 'name' || VOLUMES.includes(kind)),
      ),
  },
  {
    name: 'Privilege Escalation',
    level: 'restricted',
    holds: (pod) =>
      eachContainer(pod, (container) => at(container, 'securityContext', 'allowPrivilegeEscalation') === false),
  },
  {
    name: 'Running as Non-root',
    level: 'restricted',
    holds: (pod) => setForEach(pod, (value) => value === true, 'runAsNonRoot'),
  },
  {
    name: 'Running as Non-root user',
    level: 'restricted',
    holds: (pod) => everywhere(pod, 'runAsUser').every((user) => user !== 0),
  },
  {
    name: 'Seccomp',
    level: 'restricted',
    holds: (pod) =>
      setForEach(pod, (value) => value === 'RuntimeDefault' || value === 'Localhost', 'seccompProfile', 'type'),
  },
  {
    name: 'Capabilities',
    level: 'restricted',
    holds: (pod) =>
      eachContainer(pod, (container) => {
        const { drop, add } = (at(container, 'securityContext', 'capabilities') ?? {}) as Json
        return texts(drop).includes('ALL') && texts(add).every((name) => name === 'NET_BIND_SERVICE')
      }),
  },
]

/** The names of the controls that a pod breaks, in the order of the standard. */
export function brokenControls(pod: Pod): readonly string[] {
  return CONTROLS.filter(({ holds }) => !holds(pod)).map(({ name }) => name)
}
