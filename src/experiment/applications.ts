/** What is known of an application that a cluster can have installed. */
export interface KnownApplication {
  readonly publicManifests: readonly string[]
  /** Where users go, as seen inside the cluster. */
  readonly frontendUrl: string
  readonly namespace: string
}

/** By the name of their topology, which says what services they have. Manifests are pinned. */
export const APPLICATIONS: ReadonlyMap<string, KnownApplication> = new Map([
  [
    'online-boutique',
    {
      publicManifests: [
        'https://raw.githubusercontent.com/GoogleCloudPlatform/microservices-demo/v0.10.2/release/kubernetes-manifests.yaml',
      ],
      frontendUrl: 'http://frontend',
      namespace: 'boutique',
    },
  ],
  [
    'sock-shop',
    {
      publicManifests: [
        'https://raw.githubusercontent.com/microservices-demo/microservices-demo/b1aaa7d3c064dc5192d54937444c43c40f7f7ae5/deploy/kubernetes/complete-demo.yaml',
      ],
      frontendUrl: 'http://front-end',
      // The manifest itself names it.
      namespace: 'sock-shop',
    },
  ],
])

export const LOAD_IMAGES = { locust: 'locustio/locust:2.32.1', k6: 'grafana/k6:1.3.0' } as const

/** Where Istio's own addon has it. */
export const ISTIO_PROMETHEUS = { namespace: 'istio-system', service: 'prometheus', port: 9090 } as const
