// Client is a DERP client that is built with some release of tailscale. It shakes hands with the relay, prints its
// key, sends a packet to a peer, waits for one from it, and prints what came.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

func main() {
	var node tailcfg.DERPNode
	check(json.Unmarshal([]byte(os.Args[1]), &node))
	var peer key.NodePublic
	check(peer.UnmarshalText([]byte(os.Args[2])))

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	time.AfterFunc(20*time.Second, func() { check(fmt.Errorf("out of time")) })
	k := key.NewNode()
	region := &tailcfg.DERPRegion{RegionID: 900, RegionCode: "test", Nodes: []*tailcfg.DERPNode{&node}}
	c := derphttp.NewRegionClient(k, logger.Discard, netmon.NewStatic(), func() *tailcfg.DERPRegion { return region })
	defer c.Close()
	check(c.Connect(ctx))
	m, err := c.Recv()
	check(err)
	if _, ok := m.(derp.ServerInfoMessage); !ok {
		check(fmt.Errorf("relay's first message is a %T", m))
	}
	fmt.Println(k.Public())
	check(c.Send(peer, []byte("from an older release")))
	for {
		m, err := c.Recv()
		check(err)
		if p, ok := m.(derp.ReceivedPacket); ok && p.Source == peer {
			fmt.Printf("%s\n", p.Data)
			return
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
