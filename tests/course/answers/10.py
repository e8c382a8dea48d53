# %% 10.1, wrong: one too many where it is exact
def iterations_for(share, momentum):
    return math.ceil(math.log(1 - share) / math.log(1 - momentum))

# %% 10.1, wrong: a hair that is too wide
def iterations_for(share, momentum):
    return math.ceil(math.log(1 - share) / math.log(1 - momentum) - 0.05)

# %% 10.1, right: a loop with a hair
def iterations_for(share, momentum):
    left, t = 1.0, 0
    while left > 1 - share + 1e-9:
        left *= 1 - momentum
        t += 1
    return t

# %% 10.1, right: rounded to six decimals first
def iterations_for(share, momentum):
    return math.ceil(round(math.log(1 - share) / math.log(1 - momentum), 6))

# %% 10.2, wrong: one decimal whatever is printed
right = counts_background
def counts_background(*row):
    return right(*row[:5])

# %% 10.2, wrong: twenty classes whatever there are
def counts_background(old, new, everything, num_old, num_new, decimals=1):
    with_bg = ((num_old + 1) * old + num_new * new) / 21
    without = (num_old * old + num_new * new) / 20
    yes, no = (abs(v - everything) <= 10**-decimals + 1e-9 for v in (with_bg, without))
    return "either" if yes and no else "yes" if yes else "no" if no else "neither"

# %% 10.2, wrong: no hair for floats
def counts_background(old, new, everything, num_old, num_new, decimals=1):
    with_bg = ((num_old + 1) * old + num_new * new) / (num_old + num_new + 1)
    without = (num_old * old + num_new * new) / (num_old + num_new)
    yes, no = (abs(v - everything) <= 10**-decimals for v in (with_bg, without))
    return "either" if yes and no else "yes" if yes else "no" if no else "neither"

# %% 10.2, wrong: a little less than a unit
def counts_background(old, new, everything, num_old, num_new, decimals=1):
    with_bg = ((num_old + 1) * old + num_new * new) / (num_old + num_new + 1)
    without = (num_old * old + num_new * new) / (num_old + num_new)
    yes, no = (abs(v - everything) < 0.95 * 10**-decimals for v in (with_bg, without))
    return "either" if yes and no else "yes" if yes else "no" if no else "neither"

# %% 10.2, wrong: one or two decimals
def counts_background(old, new, everything, num_old, num_new, decimals=1):
    with_bg = ((num_old + 1) * old + num_new * new) / (num_old + num_new + 1)
    without = (num_old * old + num_new * new) / (num_old + num_new)
    yes, no = (abs(v - everything) <= (0.1 if decimals == 1 else 0.01)+1e-9 for v in (with_bg, without))
    return "either" if yes and no else "yes" if yes else "no" if no else "neither"

# %% 10.2, right: intervals of half a unit
def counts_background(old, new, everything, num_old, num_new, decimals=1):
    h=.5*10**-decimals
    def fits(n):
        lo=(n*(old-h)+num_new*(new-h))/(n+num_new); hi=(n*(old+h)+num_new*(new+h))/(n+num_new)
        return lo<=everything+h+1e-9 and hi>=everything-h-1e-9
    y,n=fits(num_old+1),fits(num_old)
    return ("neither","no","yes","either")[2*y+n]

# %% 10.2, right: decimal fractions
from decimal import Decimal as Dm
def counts_background(old, new, everything, num_old, num_new, decimals=1):
    o,nw,e=(Dm(str(v)) for v in (old,new,everything)); unit=Dm(10)**-decimals
    y=abs(((num_old+1)*o+num_new*nw)/(num_old+1+num_new)-e)<=unit
    n=abs((num_old*o+num_new*nw)/(num_old+num_new)-e)<=unit
    return {(1,0):"yes",(0,1):"no",(1,1):"either",(0,0):"neither"}[(y,n)]

# %% 10.3, wrong: names in a circle
def other_names(loss):
    features, labels, prototypes = scene()
    name = torch.tensor([0, 2, 3, 1])
    renamed = torch.where(labels == 255, 255, name[labels.clamp(max=3)])
    rows = torch.empty_like(prototypes)
    rows[name] = prototypes
    return loss(features, labels, prototypes), loss(features, renamed, rows)

# %% 10.3, wrong: locations in reverse, too
def other_names(loss):
    f,y,p=scene(); z=torch.where((y>0)&(y<4),4-y,y)
    return loss(f,y,p),loss(f.flip(3),z.flip(2),p[[0,3,2,1]])

# %% 10.3, wrong: channels in reverse, too
def other_names(loss):
    f,y,p=scene(); z=torch.where((y>0)&(y<4),4-y,y)
    return loss(f,y,p),loss(f.flip(1),z,p[[0,3,2,1]].flip(1))

# %% 10.3, right: numbers
def other_names(loss):
    features, labels, prototypes = scene()
    name = torch.arange(256); name[1], name[3] = 3, 1
    return loss(features, labels, prototypes).item(), loss(features, name[labels], prototypes[[0, 3, 2, 1]]).item()

# %% 10.3, right: both stacked
def other_names(loss):
    features, labels, prototypes = scene()
    renamed = torch.where((labels>0)&(labels<4),4-labels,labels)
    return torch.stack([loss(features, labels, prototypes), loss(features, renamed, prototypes[[0,3,2,1]])])

# %% 10.3, right: changed in place between the two calls
def other_names(loss):
    f,y,p=scene(); before=loss(f,y,p)
    y.apply_(lambda c:{1:3,3:1}.get(c,c)); p[[1,3]]=p[[3,1]].clone()
    return before,loss(f,y,p)

# %% 10.4, right: features that need a gradient
right = smallest_case
def smallest_case(name):
    f,y,p=right(name); return f.requires_grad_(),y,p

# %% 10.4, right: whole numbers as features
right = smallest_case
def smallest_case(name):
    if name == "matching": return torch.tensor([[[[0, 1], [2, 3]]]]), torch.tensor([[[0, 1], [0, 0]]]), torch.tensor([[0.0], [1.0]])
    return right(name)

# %% 10.4, right: whole numbers as prototypes
right = smallest_case
def smallest_case(name):
    if name == "matching": return torch.tensor([[[[0., 1], [2, 3]]]]), torch.tensor([[[0, 1], [0, 0]]]), torch.tensor([[0], [1]])
    return right(name)

# %% 10.4, wrong: a symmetric map of labels
right = smallest_case
def smallest_case(name):
    if name == "matching": return torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), torch.tensor([[[1, 0], [0, 0]]]), torch.tensor([[0.0], [1.0]])
    return right(name)

# %% 10.5, wrong: short questions
def examination():
    f,y,p=two_classes()
    return [("by hand",0.2,losses.repulsion(f,y,3)),("twice",0.2,losses.repulsion(f.repeat(2,1,1,1),y.repeat(2,1,1),3)),("matching",0.0,losses.prototypes_matching(f,y,p,"mse")),("scaled",0.1,losses.repulsion(2*f,y,3))]
