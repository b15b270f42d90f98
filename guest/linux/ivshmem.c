// SPDX-License-Identifier: GPL-2.0-only
/*
 * ivshmem.c - transport for KVM: QEMU's ivshmem-doorbell device (M24)
 *
 * BAR0 registers (IVPosition at 8: our slot; Doorbell at 12: peer << 16 | vector), BAR1 MSI-X,
 * BAR2 the group's memory. The device comes and goes by hotplug while connections are open.
 */
#include <linux/io.h>
#include <linux/pci.h>

#include "module.h"

#define VMCOMM_IVSHMEM_POSITION 8
#define VMCOMM_IVSHMEM_DOORBELL 12

struct vmcomm_ivshmem {
	struct pci_dev *pdev;
	void __iomem *regs;
	void *mem;
	u64 size;
	int vectors;
	int irq[VMCOMM_VECTORS];
	u32 slot;
	u32 peer_vectors;
	struct delayed_work join;
	struct vmcomm_link link;
};

/*
 * One device at a time: a VM is in one group. The link outlives the device, as sockets that stay
 * wrapped while the VM moves refer to it.
 */
static struct vmcomm_ivshmem vmcomm_iv;
static bool vmcomm_iv_registered;

static struct vmcomm_region *vmcomm_iv_region(void)
{
	return &vmcomm_iv.link.region;
}

static struct vmcomm_abi_pair *vmcomm_iv_pair_page(struct vmcomm_node *node, u32 owner, u32 peer)
{
	return vmcomm_region_pair_page(vmcomm_iv_region(), owner, peer);
}

static int vmcomm_iv_map(struct vmcomm_node *node, u32 owner, u32 peer, u32 chunk, u32 count,
			 void **mem)
{
	int err = vmcomm_region_map(vmcomm_iv_region(), owner, chunk, count, mem);

	if (!err && owner != node->slot)
		vmcomm_access_mapped(&vmcomm_iv.link, owner, chunk, count);
	return err;
}

static int vmcomm_iv_location(struct vmcomm_node *node, u32 slot, struct vmcomm_location *loc)
{
	return vmcomm_region_location(vmcomm_iv_region(), slot, loc);
}

static void vmcomm_iv_doorbell(struct vmcomm_node *node, u32 slot, u32 vector)
{
	writel(slot << 16 | vector, vmcomm_iv.regs + VMCOMM_IVSHMEM_DOORBELL);
}

static const struct vmcomm_backend_ops vmcomm_iv_ops = {
	.pair_page = vmcomm_iv_pair_page,
	.map = vmcomm_iv_map,
	.location = vmcomm_iv_location,
	.doorbell = vmcomm_iv_doorbell,
};

static int vmcomm_iv_find(struct vmcomm_link *link, const struct sock *sk, const u8 raddr[16],
			  bool client)
{
	return vmcomm_node_find(&link->node, raddr);
}

static void vmcomm_iv_rejoin(struct vmcomm_link *link)
{
	queue_delayed_work(vmcomm_wq, &vmcomm_iv.join, 0);
}

/* Interrupts are there when the link is up. Masked ones come once when they are let through. */
static void vmcomm_iv_mask(struct vmcomm_link *link, bool on)
{
	int i;

	for (i = 0; i < vmcomm_iv.vectors; i++)
		if (on)
			disable_irq_nosync(vmcomm_iv.irq[i]);
		else
			enable_irq(vmcomm_iv.irq[i]);
}

static irqreturn_t vmcomm_iv_irq(int irq, void *dev)
{
	vmcomm_link_doorbell(&vmcomm_iv.link);
	return IRQ_HANDLED;
}

/* The slot may not be ours yet, or peers may still hold on to its last occupant: keep trying. */
static void vmcomm_iv_join(struct work_struct *work)
{
	struct vmcomm_ivshmem *iv = container_of(to_delayed_work(work), struct vmcomm_ivshmem, join);
	struct vmcomm_node_config config = {
		.backend = &vmcomm_iv_ops,
		.lay = &iv->link.region.lay,
		.slot = iv->slot,
	};
	const struct vmcomm_layout *lay = &iv->link.region.lay;
	int err;

	if (READ_ONCE(iv->link.up)) {
		if (!READ_ONCE(iv->link.left))
			return;
		vmcomm_link_down(&iv->link); /* it has left, and the host wants it again */
	}
	config.location_word = &vmcomm_layout_location(lay, iv->mem, iv->slot)->location;
	config.page = vmcomm_layout_slot(lay, iv->mem, iv->slot);
	config.reclaim_ask = vmcomm_layout_reclaim(lay, iv->mem, iv->slot, 0);
	config.reclaim_ack = vmcomm_layout_reclaim_ack(lay, iv->mem, iv->slot, 0);
	err = vmcomm_link_up(&iv->link, &config);
	if (!err) {
		dev_info(&iv->pdev->dev, "joined the group in slot %u of %u\n", iv->slot,
			 lay->slots);
		return;
	}
	if (err != -EAGAIN && err != -ENOMEM)
		dev_warn_ratelimited(&iv->pdev->dev, "cannot join the group yet: %d\n", err);
	queue_delayed_work(vmcomm_wq, &iv->join, HZ / 50 + 1);
}

static int vmcomm_iv_irqs(struct pci_dev *pdev, struct vmcomm_ivshmem *iv)
{
	int i, err;

	iv->vectors = pci_alloc_irq_vectors(pdev, 1, VMCOMM_VECTORS, PCI_IRQ_MSIX);
	if (iv->vectors < 0) {
		dev_err(&pdev->dev, "no MSI-X vectors: %d; is it ivshmem-doorbell with vectors=?\n",
			iv->vectors);
		return iv->vectors;
	}
	for (i = 0; i < iv->vectors; i++) {
		iv->irq[i] = pci_irq_vector(pdev, i);
		err = request_irq(iv->irq[i], vmcomm_iv_irq, 0, "vmcomm", iv);
		if (err)
			goto err_irq;
	}
	return 0;

err_irq:
	while (i--)
		free_irq(iv->irq[i], iv);
	pci_free_irq_vectors(pdev);
	return err;
}

static void vmcomm_iv_free_irqs(struct pci_dev *pdev, struct vmcomm_ivshmem *iv)
{
	int i;

	for (i = 0; i < iv->vectors; i++)
		free_irq(iv->irq[i], iv);
	pci_free_irq_vectors(pdev);
}

static int vmcomm_iv_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct vmcomm_ivshmem *iv = &vmcomm_iv;
	u32 slot;
	int err;

	if (iv->pdev) {
		dev_err(&pdev->dev, "a VM is in one group only: %s is in use already\n",
			pci_name(iv->pdev));
		return -EBUSY;
	}
	err = pci_enable_device(pdev);
	if (err)
		return err;
	err = pci_request_regions(pdev, "vmcomm");
	if (err)
		goto err_enable;
	err = -ENODEV;
	iv->size = pci_resource_len(pdev, 2);
	if (iv->size < VMCOMM_REGION_MIN || pci_resource_len(pdev, 0) < 16) {
		dev_err(&pdev->dev,
			"shared memory is %llu bytes: the port's window is too small (pref64-reserve=)\n",
			iv->size);
		goto err_regions;
	}
	err = -ENOMEM;
	iv->regs = pci_iomap(pdev, 0, 0);
	if (!iv->regs)
		goto err_regions;
	iv->mem = memremap(pci_resource_start(pdev, 2), iv->size, MEMREMAP_WB);
	if (!iv->mem)
		goto err_regs;
	err = vmcomm_region_init(&iv->link.region, iv->mem, iv->size);
	if (err) {
		dev_err(&pdev->dev, "not memory of a vmcomm group (%d)\n", err);
		goto err_mem;
	}
	slot = readl(iv->regs + VMCOMM_IVSHMEM_POSITION);
	if (slot >= iv->link.region.lay.slots) {
		dev_err(&pdev->dev, "slot %u: the group has %u\n", slot,
			iv->link.region.lay.slots);
		err = -ENODEV;
		goto err_mem;
	}
	iv->slot = slot;
	err = vmcomm_access_add(&iv->link, slot, 1);
	if (err)
		goto err_mem;
	pci_set_master(pdev);
	err = vmcomm_iv_irqs(pdev, iv);
	if (err)
		goto err_access;
	iv->pdev = pdev;
	pci_set_drvdata(pdev, iv);
	queue_delayed_work(vmcomm_wq, &iv->join, 0);
	return 0;

err_access:
	vmcomm_access_remove(iv->mem);
err_mem:
	memunmap(iv->mem);
err_regs:
	pci_iounmap(pdev, iv->regs);
err_regions:
	pci_release_regions(pdev);
err_enable:
	pci_disable_device(pdev);
	return err;
}

static void vmcomm_iv_remove(struct pci_dev *pdev)
{
	struct vmcomm_ivshmem *iv = pci_get_drvdata(pdev);

	cancel_delayed_work_sync(&iv->join);
	vmcomm_link_down(&iv->link);
	vmcomm_iv_free_irqs(pdev, iv);
	/* An interrupt may have come after the link's own clean-up. */
	vmcomm_link_deinit(&iv->link);
	vmcomm_access_remove(iv->mem);
	memunmap(iv->mem);
	pci_iounmap(pdev, iv->regs);
	pci_clear_master(pdev);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
	iv->pdev = NULL;
}

static const struct pci_device_id vmcomm_iv_ids[] = {
	{PCI_DEVICE(0x1af4, 0x1110)},
	{},
};
MODULE_DEVICE_TABLE(pci, vmcomm_iv_ids);

static struct pci_driver vmcomm_iv_driver = {
	.name = "vmcomm",
	.id_table = vmcomm_iv_ids,
	.probe = vmcomm_iv_probe,
	.remove = vmcomm_iv_remove,
};

int vmcomm_ivshmem_init(void)
{
	int err;

	vmcomm_link_init(&vmcomm_iv.link, "ivshmem");
	vmcomm_iv.link.find = vmcomm_iv_find;
	vmcomm_iv.link.rejoin = vmcomm_iv_rejoin;
	vmcomm_iv.link.mask = vmcomm_iv_mask;
	INIT_DELAYED_WORK(&vmcomm_iv.join, vmcomm_iv_join);
	err = pci_register_driver(&vmcomm_iv_driver);
	vmcomm_iv_registered = !err;
	return err;
}

void vmcomm_ivshmem_deinit(void)
{
	if (vmcomm_iv_registered)
		pci_unregister_driver(&vmcomm_iv_driver);
}
